"""What the library says, written for Python, in the words of the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
import warnings
from collections.abc import Container, Iterator, Sequence

from dd_jax.errors import DDJaxError

_ARGUMENT = re.compile(r"\b([a-z][a-z0-9_]*)=('[^']*'|\"[^\"]*\"|[^\s,;()]+)")
# Python's names of what has another here, if a method has no option of that name.
_RENAMED = {"test_fraction": "test_share", "candidates": "representative"}
# Command -> records of its options, and whether a method's settings follow its first word.
_RECORDS = {
    "distill": (("dd_jax.cli.options.Run",), True),
    "prepare": (("dd_jax.cli.options.Prepare",), True),
    "prepare teacher": (("dd_jax.cli.prepare_teacher.PrepareTeacher",), False),
    "evaluate": (("dd_jax.cli.evaluate.Evaluate",), False),
    "export": (("dd_jax.cli.sets.Export",), False), "show": (("dd_jax.cli.sets.Show",), False),
    "artefacts": (("dd_jax.cli.artefacts.Artefacts",), False),
}


def in_options(text: str, names: Container[str]) -> str:
    """Arguments such as size=32 as options, --size 32, where the command has them.

    Example:
      >>> in_options("pass size=32, or device=True; pass overwrite=True", {"size", "overwrite"})
      'pass --size 32, or device=True; pass --overwrite'
    """

    def option(found: re.Match) -> str:
        name, value = found[1], found[2].strip("'\"")
        if name not in names:
            return found[0]
        word = name.replace("_", "-")
        switch = {"True": f"--{word}", "False": f"--no-{word}"}
        return switch.get(value, f"--{word} {value}")

    for name, other in _RENAMED.items():
        if other in names and name not in names:
            text = re.sub(rf"\b{name}\b", other, text)
    return _ARGUMENT.sub(option, re.sub(r"\bload\('(\w+)'\)", r"--data \1", text))


def told_here(error: DDJaxError, words: Sequence[str]) -> str:
    """An error as one line for whoever gave these words."""
    if not set("=(") & set(error.fix) and not any(name in str(error) for name in _RENAMED):
        return f"{type(error).__name__}: {error}"
    names = _option_names(words)
    parts = [in_options(part, names) for part in (error.message, error.fix) if part]
    return f"{type(error).__name__}: " + "; ".join(parts)


def _option_names(words: Sequence[str]) -> set[str]:
    """Fields of the records that the options of a command are read into."""
    two, one = " ".join(words[:2]), words[0] if words else ""
    records, with_method = _RECORDS.get(two) or _RECORDS.get(one, ((), False))
    kinds = []
    for record in records:
        module, _, name = record.rpartition(".")
        kinds.append(getattr(importlib.import_module(module), name))
    if with_method and len(words) > 1:
        from dd_jax.methods import get

        with contextlib.suppress(DDJaxError):  # of what is no method
            kinds.append(get(words[1]).settings)
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Shows a warning as one line, without the place in the library's code."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *place, **more: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before
