"""What the parser of options refuses: one line as all errors are, instead of its box."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from dd_jax.errors import ConfigError, nearest

_KINDS = {"INT": "a whole number", "FLOAT": "a number"}
_UNKNOWN = "Unrecognized options: "


def refusal(
    box: str, words: Sequence[str], *, options: Collection[str], program: str
) -> ConfigError:
    r"""The error that a box of tyro's stands for.

    Args:
      box: what it printed.
      words: that it was given.
      options: all that there are, such as "--batch-size".
      program: what was called, without its words.

    Example:
      >>> box = "Unrecognized options: --steeps, 3\n" + 9 * "\u2500" + "\nFor full helptext, ..."
      >>> print(refusal(box, ["--steeps", "3"], options=["--steps"], program="dd-jax distill"))
      unknown option '--steeps'; did you mean '--steps'?
    """
    said, told, *_ = *_parts(box), "", ""
    see = f"{program} --help lists the options"
    if said.startswith(_UNKNOWN):
        names = (word.partition("=")[0].replace("_", "-") for word in words if word[:2] == "--")
        odd = next((name for name in names if name not in options), None)
        if odd is None:
            return ConfigError(f"{said.removeprefix(_UNKNOWN)!r} belongs to no option", fix=see)
        near = nearest(odd, options)
        return ConfigError(f"unknown option {odd!r}", fix=near if near.endswith("?") else see)
    if found := re.match(r"Error parsing (--\S+):", said):
        return _wrong_value(found[1], told, words, see)
    if found := re.match(r"Missing value for argument '(--\S+)'", said):
        return ConfigError(f"{found[1]} has no value", fix=f"write one after it; {see}")
    if found := re.match(r"Missing from .*?: ([A-Z]\S*) (.*?)\.? \(required\)", said):
        return ConfigError(f"{program} lacks {found[1]}, {found[2]}", fix=f"name it; {see}")
    return ConfigError(said, fix=see)


def _wrong_value(option: str, told: str, words: Sequence[str], see: str) -> ConfigError:
    """An option's value that is of another kind; `told` is the option's own entry of the help."""
    value = _value_of(option, words)
    kind, default = (re.search(pattern, told) for pattern in (
        rf"{re.escape(option)} (?:{{None}}\|)?(\S+)", r"\(default: ([^()]+)\)"))
    expected = _KINDS.get(kind[1], kind[1]) if kind else "another kind of value"
    usual = default is not None and default[1] != "None"
    return ConfigError(f"{option} is {value!r}, expected {expected}",
                       fix=f"pass for example {option} {default[1]}" if usual else see)


def _value_of(option: str, words: Sequence[str]) -> str:
    """What was given for an option, at the last place where it was."""
    value = ""
    for word, following in zip(words, [*words[1:], ""]):
        name, equals, own = word.partition("=")
        if name.replace("_", "-") == option:
            value = own if equals else following
    return value


def _parts(box: str) -> list[str]:
    """The text between the rules of a box, each part as one line."""
    lines = [line.strip("│ ") for line in box.splitlines() if line[:1] not in "╭╰"]
    parts: list[list[str]] = [[]]
    for line in lines:
        if line and not line.strip("─"):
            parts.append([])
        elif line:
            parts[-1].append(line)
    return [" ".join(part) for part in parts]
