"""The typed errors of dd_jax: each says what was found, what was expected and what to do."""

from __future__ import annotations

import difflib
import math
import numbers
import operator
from collections.abc import Iterable

MOST_SHOWN = 2000


def printable(text: object, *, most: int = MOST_SHOWN) -> str:
    r"""Any text as one line that a terminal shows and does not obey: the way out for foreign text.

    Control characters, line ends, marks that turn the direction of reading and halves of characters
    come out escaped; what is longer than `most` is cut.

    Example:
      >>> print(printable("a\x1b[31mb\n"), printable("abcdefgh", most=6))
      a\x1b[31mb\n abc...
    """
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."


class DDJaxError(Exception):
    """Base class of every error that dd_jax raises on purpose.

    Args:
      message: what was found and what was expected, with the offending value.
      fix: the next action for the reader, in one sentence.

    Example:
      >>> raise ConfigError("ipc is 0, expected an integer of at least 1", fix="pass ipc=1 or more")
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: ipc is 0, expected an integer of at least 1; pass ipc=1 or more
    """

    def __init__(self, message: str, *, fix: str = ""):
        # Both quote names and files of anybody, and end on a terminal.
        self.message = printable(message)
        self.fix = printable(fix)
        super().__init__(f"{self.message}; {self.fix}" if fix else self.message)


class ConfigError(DDJaxError):
    """A setting is wrong, unknown or contradicts another."""


class DataError(DDJaxError):
    """Real data is missing, damaged, mislabelled or of the wrong kind."""


class SetFileError(DDJaxError):
    """A distilled-set file is damaged, foreign or does not fit its use."""


class CheckpointError(DDJaxError):
    """A run folder cannot be used, or its checkpoint does not belong to this run."""


class NonFiniteError(DDJaxError):
    """A loss, gradient or image stopped being finite during a run."""


class DeviceMemoryError(DDJaxError):
    """The device has no memory left for a step; a run's last checkpoint is kept."""


class RunStopped(DDJaxError):
    """A signal ended the run early; its checkpoint is saved and the same call continues it."""


class MissingPackageError(DDJaxError):
    """An optional package that this call needs is not installed or does not import."""


def nearest(name: str, valid: Iterable[str], *, count: int = 3) -> str:
    """Says which valid names are nearest to a misspelt one.

    Args:
      name: what the user wrote.
      valid: all the names that would have been accepted.
      count: how many suggestions at most.

    Returns:
      "did you mean 'a' or 'b'?" where something is near, else "valid are: ...".

    Example:
      >>> nearest("frepoo", ["frepo", "dm"])
      "did you mean 'frepo'?"
    """
    valid, name = sorted(valid), str(name)[:100]
    close = difflib.get_close_matches(name, valid, n=count, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "valid are: " + ", ".join(valid)


def unknown(what: str, name: str, valid: Iterable[str]) -> ConfigError:
    """Builds the ConfigError for a name that is not in a table.

    Example:
      >>> unknown("method", "frepoo", ["frepo", "dm"]).message
      "unknown method 'frepoo'"
    """
    shown = printable(repr(name), most=100)
    return ConfigError(f"unknown {what} {shown}", fix=nearest(name, valid))


def require_whole(name: str, value: object, *, least: int = 1, example: int | None = None) -> None:
    """Refuses what is not a whole number of at least `least`; True is none.

    Args:
      name: of the setting, perhaps after that of what it belongs to: "pool size".
      value: what the user gave.
      least: the smallest that can be.
      example: a usual value, for the advice.

    Raises:
      ConfigError: as said.

    Example:
      >>> require_whole("pool size", 0, example=10)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: pool size is 0, expected an integer of at least 1; pass size=10
    """
    try:
        good = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        good = False
    if not good:
        raise ConfigError(f"{name} is {value!r}, expected an integer of at least {least}",
                          fix=f"pass {name.split()[-1]}={least if example is None else example}")


def require_at_least_zero(name: str, value: object, *, example: float = 0.1) -> None:
    """Refuses what is not a finite number of at least 0: rates, weights, widths.

    Args:
      name: of the setting, as for `require_whole`.
      value: what the user gave.
      example: a usual value, for the advice.

    Raises:
      ConfigError: as said.

    Example:
      >>> require_at_least_zero("scale", -1.0, example=9)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: scale is -1.0, expected a finite number of at least 0; pass scale=9
    """
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (good and 0.0 <= value < math.inf):
        raise ConfigError(f"{name} is {value!r}, expected a finite number of at least 0",
                          fix=f"pass {name.split()[-1]}={example}")


def require_above_zero(name: str, value: object, *, why: str, example: float) -> None:
    """Refuses what is not a finite number above 0.

    Args:
      name: of the setting, as for `require_whole`.
      value: what the user gave.
      why: 0 will not do.
      example: a usual value, for the advice.

    Raises:
      ConfigError: as said.

    Example:
      >>> require_above_zero("cap", 0.0, why="no gradient would pass", example=2.0)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: cap is 0, expected more: no gradient would pass; pass cap=2.0
    """
    require_at_least_zero(name, value, example=example)
    if value == 0:
        raise ConfigError(f"{name} is 0, expected more: {why}",
                          fix=f"pass {name.split()[-1]}={example}")


def require_probability(name: str, value: object) -> None:
    """Refuses what is not a number in 0..1.

    Args:
      name: of the setting, as for `require_whole`.
      value: what the user gave.

    Raises:
      ConfigError: as said.

    Example:
      >>> require_probability("mix", 2)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: mix is 2, expected a probability; pass mix=0.5
    """
    if not (isinstance(value, (int, float)) and 0.0 <= value <= 1.0):
        raise ConfigError(f"{name} is {value!r}, expected a probability",
                          fix=f"pass {name.split()[-1]}=0.5")


def require_decay(name: str, value: object) -> None:
    """Refuses what is not the decay of a moving average, a number between 0 and 1.

    Args:
      name: of the setting, as for `require_whole`.
      value: what the user gave.

    Raises:
      ConfigError: as said.

    Example:
      >>> require_decay("average", 1.0)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: average is 1.0, expected a decay between 0 and 1; pass average=0.99
    """
    if not (isinstance(value, (int, float)) and 0.0 < value < 1.0):
        raise ConfigError(f"{name} is {value!r}, expected a decay between 0 and 1",
                          fix=f"pass {name.split()[-1]}=0.99")


SEEDS = 2**32  # the generator of random numbers looks at 32 bits


def require_seed(name: str, value: object) -> None:
    """Refuses what is not a seed: a whole number that the generator can tell from all others.

    Args:
      name: of the setting, as for `require_whole`.
      value: what the user gave.

    Raises:
      ConfigError: as said.

    Example:
      >>> require_seed("seed", -1)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: seed is -1, expected one between 0 and 2^32 - 1; pass seed=0
    """
    try:
        good = not isinstance(value, bool) and 0 <= operator.index(value) < SEEDS
    except TypeError:
        good = False
    if not good:
        raise ConfigError(f"{name} is {told(value)}, expected one between 0 and 2^32 - 1",
                          fix=f"pass {name.split()[-1]}=0")


def require_kind(name: str, value: object, kind: type | tuple[type, ...], *, expected: str,
                 fix: str) -> None:
    """Refuses an argument of another kind than an entry point takes.

    Args:
      name: of the argument.
      value: what the user gave.
      kind: the class, or classes, that it has to be of.
      expected: the same in words: "a Protocol".
      fix: what to pass.

    Raises:
      ConfigError: as said.

    Example:
      >>> require_kind("data", (1, 2), dict, expected="RealData", fix="call dd.data.from_arrays")
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: data is a tuple, expected RealData; call dd.data.from_arrays
    """
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is {told(value)}, expected {expected}", fix=fix)


def told(value: object) -> str:
    """A value in a few words: a short number or text as it is written, all else by its kind.

    Example:
      >>> told("cpu"), told([1, 2]), told(None)
      ("'cpu'", 'a list', 'None')
    """
    if value is None or isinstance(value, (bool, float, str)) or (
            isinstance(value, int) and value.bit_length() < 256):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}..."
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
