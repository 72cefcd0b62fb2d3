"""Pieces of stored training trajectories: where a student starts and where it should arrive."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError, require_whole


class Segment(NamedTuple):
    """A piece of one expert's trajectory.

    Attributes:
      start: [P] parameters at epoch t.
      target: [P] at epoch t + span.
      between: [span - 1, P] at the epochs between, or () where nobody asks.
      epoch: [] int32, t.
    """

    start: jax.Array
    target: jax.Array
    between: Any
    epoch: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Segments:
    """A store of segments, see `types.HostStore`; asked for (expert, epoch).

    Attributes:
      trajectories: has `experts`, a tuple of which positions count, `epochs`, `parameters` and
        `read(expert, epoch) -> [..., P]`, such as `store.open_trajectories` returns.
      span: epochs from start to target.
      waypoints: whether the epochs between are read as well.
    """

    trajectories: Any
    span: int
    waypoints: bool = False

    def __post_init__(self):
        require_whole("span", self.span, example=2)
        if self.span > self.trajectories.epochs:
            raise ConfigError(
                f"span is {self.span}, but the trajectories have {self.trajectories.epochs} epochs",
                fix=f"pass span={self.trajectories.epochs} or less, or train longer experts",
            )

    def read(self, index) -> Segment:
        expert, epoch = (np.asarray(i) for i in index)
        steps = np.arange(self.span + 1) if self.waypoints else np.array([0, self.span])
        expert = np.broadcast_to(expert[..., None], (*expert.shape, len(steps)))
        found = self.trajectories.read(expert, epoch[..., None] + steps)
        return Segment(found[..., 0, :], found[..., -1, :],
                       found[..., 1:-1, :] if self.waypoints else (), epoch)

    def like(self, index) -> Segment:
        shape, size = index[1].shape, self.trajectories.parameters

        def parameters(*leading):
            return jax.ShapeDtypeStruct((*shape, *leading, size), jnp.float32)

        between = parameters(self.span - 1) if self.waypoints else ()
        return Segment(parameters(), parameters(), between,
                       jax.ShapeDtypeStruct(shape, jnp.int32))


class StartEpochs(NamedTuple):
    """From which epochs of an expert segments start: low, ..., high - 1, each as likely.

    Attributes:
      low: the first epoch.
      high: at the end of the growth.
      first: `high` of the first step; None for no growth.
      until: steps of the growth, which is linear; 0 for no growth.
    """

    low: int
    high: int
    first: int | None = None
    until: int = 0

    def now(self, step: jax.Array) -> jax.Array:
        """[] int32, `high` at this step."""
        if self.first is None:
            return jnp.asarray(self.high, jnp.int32)
        grown = self.first + (self.high - self.first) * step // self.until
        return jnp.minimum(grown, self.high).astype(jnp.int32)


def check_starts(
    starts: StartEpochs, *, span: int, epochs: int, longer: str = "epochs"
) -> None:
    """Refuses start epochs that cannot be, or whose targets trajectories of `epochs` do not hold.

    `longer` is the setting by which experts are trained for more epochs.

    Raises:
      ConfigError: as said.
    """
    low, high, first, until = starts
    require_whole("min_start", low, least=0, example=0)
    require_whole("max_start", high, least=low + 1, example=low + 20)
    if first is not None:
        require_whole("first_max_start", first, least=low + 1, example=low + 10)
        require_whole("growth_steps", until, example=1000)
        if first > high:
            raise ConfigError(f"max_start begins at {first} and ends at {high}, expected a growth",
                              fix=f"begin at {high} or less")
    elif until:
        raise ConfigError(f"growth_steps is {until!r}, but nothing says where max_start begins",
                          fix=f"pass first_max_start={low + 1} or growth_steps=0")
    last, most = high - 1 + span, epochs - span + 1
    if last > epochs:
        lower = f"max_start={most} or " if most > low else ""
        raise ConfigError(
            f"max_start={high} and span={span} need experts of {last} epochs, and these have "
            f"{epochs}", fix=f"pass {lower}{longer}={last}")
