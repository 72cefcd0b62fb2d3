"""What the methods that differentiate a network's training have in common."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dd_jax import nets
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import ConfigError, unknown
from dd_jax.methods.record import default_depth, require_positive, require_rate
from dd_jax.synthetic import check_start
from dd_jax.train.unroll import adjoint_by_name
from dd_jax.types import DataSpec, Network, RealData

ADJOINTS = ("full", "checkpointed", "recursive", "two_pass")  # each needs less than those before


@dataclasses.dataclass(frozen=True)
class UnrollingSettings:
    """Settings of every method here.

    Attributes:
      ipc: images per class.
      steps: outer steps.
      batch_size: real images per step.
      adjoint: how the inner loop is differentiated; "full", "checkpointed" and "recursive" are
        exact, "two_pass" is TESLA's rule, for plain gradient descent only.
      normaliser: a name in `data.normalisers`.
      width, depth: of the ConvNets, also of those that test the set; depth None follows the image
        size.
    """

    ipc: int = 1
    steps: int = 20_000
    batch_size: int = 1024
    adjoint: str = "checkpointed"
    normaliser: str = "standardise"
    width: int = 128
    depth: int | None = None


def check(config: Any, *, whole: Sequence[str], rates: Sequence[str]) -> None:
    """Refuses settings that cannot be: the shared ones but for `ipc`, and by name a method's.

    Raises:
      ConfigError: as said.
    """
    require_positive(config, "steps", "batch_size", "width", *whole)
    require_rate(config, *rates)


def check_images(config: Any, data: RealData) -> None:
    """Refuses a budget or a start that cannot be, for a set that has `ipc` images of each class.

    Raises:
      ConfigError: as said.
    """
    require_positive(config, "ipc")
    check_start(config.start, data, config.ipc)


def network_of(config: Any, spec: DataSpec) -> Network:
    """The ConvNet that the settings describe."""
    return nets.convnet(spec, depth=default_depth(spec, config.depth), width=config.width)


def adjoint_of(config: Any, *, plain: bool) -> Callable:
    """The adjoint of that name.

    Args:
      config: the settings.
      plain: whether the inner loop is gradient descent without momentum.

    Raises:
      ConfigError: an unknown name, or "two_pass" where it is not.
    """
    if config.adjoint not in ADJOINTS:
        raise unknown("adjoint", config.adjoint, ADJOINTS)
    if config.adjoint == "two_pass" and not plain:
        raise ConfigError("adjoint 'two_pass' knows no momentum of the student",
                          fix="pass adjoint='checkpointed' or adjoint='recursive'")
    return adjoint_by_name(config.adjoint)


def lighter(
    config: Any, data: RealData, build: Callable[[Any, RealData], Recipe], *names: str
) -> Mapping[str, Callable[[], Recipe]]:
    """The same recipe by those adjoints that need less memory, for where a step does not fit."""
    later = ADJOINTS[ADJOINTS.index(config.adjoint) + 1:]
    return {f"adjoint={name!r}": functools.partial(
        build, dataclasses.replace(config, adjoint=name), data) for name in names if name in later}
