"""Which steps of a long inner loop are differentiated: a window of fixed length that moves.

  theta_0 --n0 steps, constants--> theta_{n0} --W steps, differentiated--> theta_{n0 + W}

Source: Feng, Vedantam and Kempe, Embarrassingly Simple Dataset Distillation, ICLR 2024.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_whole, unknown

WINDOW_MODES = ("random", "last", "forward")


@dataclasses.dataclass(frozen=True)
class RandomWindow:
    """A window of `length` steps that begins after n0 of `horizon - length` steps at the most.

    Attributes:
      length: W, steps that are differentiated.
      horizon: T, steps of the student.
      low: the smallest n0.
      mode: "random" draws n0 uniformly from low..T - W; "last" has n0 = T - W; "forward" begins at
        `low` and goes W steps on, at most to T - W, whenever the loss has stood still.
      hold: outer steps that an n0 serves, or between two looks at the loss of "forward".
      patience: looks without a new lowest loss after which "forward" goes on. The loss is that of
        the step's real batch under a new network, not of test images.
    """

    length: int
    horizon: int
    low: int = 0
    mode: str = "random"
    hold: int = 1
    patience: int = 60

    def __post_init__(self):
        if self.mode not in WINDOW_MODES:
            raise unknown("window mode", self.mode, WINDOW_MODES)
        for name in ("length", "horizon", "hold", "patience"):
            require_whole(f"window {name}", getattr(self, name))
        require_whole("window low", self.low, least=0, example=0)
        if self.low + self.length > self.horizon:
            raise ConfigError(
                f"a window of {self.length} steps after {self.low} ends behind the horizon of "
                f"{self.horizon}", fix=f"pass horizon={self.low + self.length} or more")

    @property
    def last(self) -> int:
        """The largest n0."""
        return self.horizon - self.length


class WindowState(NamedTuple):
    """Where the window is.

    Attributes:
      start: [] int32, n0.
      age: [] int32, outer steps since it was drawn or looked at.
      best: [] float32, of "forward": the lowest loss at this place.
      stalled: [] int32, looks since then.
    """

    start: jax.Array
    age: jax.Array
    best: jax.Array
    stalled: jax.Array


def _drawn(window: RandomWindow, key: jax.Array) -> jax.Array:
    return jax.random.randint(key, (), window.low, window.last + 1, jnp.int32)


def first_place(window: RandomWindow, key: jax.Array) -> WindowState:
    """The window of the first outer step."""
    start = {"random": lambda: _drawn(window, key),
             "last": lambda: jnp.asarray(window.last, jnp.int32),
             "forward": lambda: jnp.asarray(window.low, jnp.int32)}[window.mode]()
    zero = jnp.zeros((), jnp.int32)
    return WindowState(start, zero, jnp.asarray(jnp.inf, jnp.float32), zero)


def next_place(
    window: RandomWindow, state: WindowState, key: jax.Array, measure: Callable[[], jax.Array]
) -> WindowState:
    """The window of the next outer step.

    Args:
      window: the rule.
      state: of this step.
      key: PRNG key of a draw.
      measure: () -> [] loss at this place; called by "forward" only, when it looks.
    """
    if window.mode == "last":
        return state
    due = state.age + 1 >= window.hold
    aged = state._replace(age=jnp.where(due, 0, state.age + 1))
    if window.mode == "random":
        return aged._replace(start=jnp.where(due, _drawn(window, key), state.start))

    def look() -> WindowState:
        loss = measure().astype(state.best.dtype)
        better = loss < state.best
        stalled = jnp.where(better, 0, state.stalled + 1)
        goes = stalled >= window.patience
        start = jnp.minimum(state.start + window.length, window.last)
        return WindowState(
            start=jnp.where(goes, start, state.start), age=aged.age,
            best=jnp.where(goes, jnp.inf, jnp.minimum(loss, state.best)),
            stalled=jnp.where(goes, 0, stalled))

    return jax.lax.cond(due, look, lambda: aged)
