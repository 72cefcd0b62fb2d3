"""How often a run writes: checked before anything is computed, asked between its steps."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Optional

from dd_jax.errors import ConfigError, require_whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cadence:
    """When metrics are logged and checkpoints saved.

    Attributes:
      log_every: steps between two lines of metrics, at least 1.
      save_seconds: seconds between checkpoints; at least 0, and infinity for never.
      save_every: steps between checkpoints as well, at least 1; None for seconds alone.

    Raises:
      ConfigError: one of them cannot be.

    Example:
      >>> Cadence(save_every=0)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: save_every is 0, expected an integer of at least 1; pass ...
    """

    log_every: int = 10
    save_seconds: float = 60.0
    save_every: Optional[int] = None

    def __post_init__(self) -> None:
        require_whole("log_every", self.log_every, example=10)
        seconds = self.save_seconds
        if not isinstance(seconds, numbers.Real) or isinstance(seconds, bool) or not seconds >= 0:
            raise ConfigError(f"save_seconds is {seconds!r}, expected a number of at least 0",
                              fix="pass save_seconds=60")
        if self.save_every is not None:
            require_whole("save_every", self.save_every, example=100)

    def logs(self, step: int) -> bool:
        """Whether metrics are logged after that step."""
        return step % self.log_every == 0

    def saves(self, step: int, *, seconds: float) -> bool:
        """Whether a checkpoint is due after that step, `seconds` after the last one."""
        return (seconds > self.save_seconds
                or (self.save_every is not None and step % self.save_every == 0))

    def steps_until_save(self, step: int, *, at_most: int) -> int:
        """How many steps may be taken after that one before a checkpoint is due.

        Example:
          >>> Cadence(save_every=20).steps_until_save(25, at_most=100)
          15
        """
        if self.save_every is None:
            return at_most
        return min(at_most, self.save_every - step % self.save_every)
