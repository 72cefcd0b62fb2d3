"""What the library knows about a method: its settings, its recipe and its published figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from dd_jax.distill.recipe import Recipe
from dd_jax.errors import (
    ConfigError,
    require_above_zero,
    require_at_least_zero,
    require_whole,
    unknown,
)
from dd_jax.types import DataSpec, Objective, RealData


class Published(NamedTuple):
    """A published accuracy in percent, with its deviation (None where not given) and source."""

    mean: float
    std: float | None
    source: str


class Method(NamedTuple):
    """One paper.

    Attributes:
      name: acronym in lower case with underscores.
      title: of the paper.
      config: the frozen dataclass of settings; its first field is `ipc`.
      presets: protocol name -> (ipc) -> config; always "official" and "cpu".
      recipe: (config, data) -> Recipe.
      published: (data name, ipc) -> Published, accuracies of fresh networks.
      citation: how to cite.
      published_read_out: the same for the method's own kernel regression, where it has one.
      fractional: whether `ipc` may be a fraction, because classes share what is stored.
    """

    name: str
    title: str
    config: type
    presets: Mapping[str, Callable[[int], Any]]
    recipe: Callable[[Any, RealData], Recipe]
    published: Mapping[tuple[str, int], Published]
    citation: str
    published_read_out: Mapping[tuple[str, int], Published] = MappingProxyType({})
    fractional: bool = False


def preset(method: Method, protocol: str, ipc: float, **changes) -> Any:
    """The method's settings for a protocol and a budget, with single fields changed.

    Raises:
      ConfigError: unknown protocol or field, ipc that cannot be.
    """
    if protocol not in method.presets:
        raise unknown(f"protocol of {method.name}", protocol, method.presets)
    if not method.fractional:
        require_whole("ipc", ipc)
    elif not isinstance(ipc, (int, float)) or isinstance(ipc, bool) or not 0 < ipc < math.inf:
        raise ConfigError(f"ipc is {ipc!r}, expected a number above 0", fix="pass ipc=0.5")
    config = method.presets[protocol](ipc)
    names = [field.name for field in dataclasses.fields(config)]
    for name in changes:
        if name not in names:
            raise unknown(f"setting of {method.name}", name, names)
    return dataclasses.replace(config, **changes)


def budget(table: Mapping[int, Mapping[str, Any]], ipc: int) -> Mapping[str, Any]:
    """The entry of the largest published budget that is not above `ipc` images per class.

    Example:
      >>> budget({1: dict(steps=10), 50: dict(steps=20)}, 10)
      {'steps': 10}
    """
    return table[max(known for known in table if known <= ipc)]


def require_positive(config: Any, *names: str) -> None:
    """Refuses settings that are not positive integers, naming the field.

    Raises:
      ConfigError: as said.
    """
    for name in names:
        value = getattr(config, name)
        require_whole(name, value)


def require_positive_if_given(config: Any, *names: str) -> None:
    """`require_positive` of those that are not None.

    Raises:
      ConfigError: as said.
    """
    require_positive(config, *(name for name in names if getattr(config, name) is not None))


def require_rate(config: Any, *names: str) -> None:
    """Refuses learning rates that are negative or not finite.

    Raises:
      ConfigError: as said.
    """
    for name in names:
        require_at_least_zero(name, getattr(config, name), example=0.001)


def require_learned_rate(config: Any, *names: str) -> None:
    """Refuses first rates that are not above 0 where their logarithms are learned.

    Raises:
      ConfigError: as said.
    """
    for name in names:
        require_above_zero(name, getattr(config, name), why="its logarithm is learned",
                           example=0.01)


def unprepared(method: str, what: str) -> Objective:
    """The objective of a recipe that has yet to be prepared: every use of it says so.

    Args:
      method: its name.
      what: it lacks, such as "teacher".
    """

    def refuse(*args, **kwargs):
        raise ConfigError(f"the recipe of {method} has no {what} yet",
                          fix="call recipe = dd.distill.prepared(recipe, data, key)")

    return Objective(*[refuse] * 4)


def default_depth(spec: DataSpec, given: int | None = None) -> int:
    """Blocks of a ConvNet that end at 4x4 maps: 3 for 28 and 32 pixels, 4 for 64, 5 for 128.

    Where a number is given, that one.

    Example:
      >>> default_depth(DataSpec("toy", (28, 28, 1), 2, ("a", "b")))
      3
    """
    if given is not None:
        return given
    height, width, channels = spec.shape
    side = min(height, width) + (4 if channels == 1 else 0)
    return max(1, round(math.log2(max(side, 4) / 4)))
