"""Notices a stalled run: its numbers are finite, so nothing else would end it early."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

_STEPS = {"grad_norm": 100, "update_norm": 10}  # zeros in a row after which something is said


class StallWatch:
    """Warns once for a gradient, and once for an update, that stays exactly zero.

    Args:
      method: named in the warning.

    Example:
      >>> import warnings
      >>> watch = StallWatch("dm")
      >>> with warnings.catch_warnings(record=True) as said:
      ...     warnings.simplefilter("always")
      ...     watch.see({"grad_norm": np.ones(10), "update_norm": np.zeros(10)})
      >>> print(said[0].message)
      dm: the set has not moved for 10 steps, its gradient is not zero: is a learning rate 0?
    """

    def __init__(self, method: str):
        self._method = method
        self._zeros = dict.fromkeys(_STEPS, 0)
        self._said = False

    def see(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Takes the metrics of the next steps, [n] each."""
        for name in _STEPS:
            moving = np.flatnonzero(metrics[name])
            count = len(metrics[name])
            self._zeros[name] = count - 1 - moving[-1] if len(moving) else self._zeros[name] + count
        if self._said:
            return
        no_gradient = self._zeros["grad_norm"]
        if no_gradient >= _STEPS["grad_norm"]:
            self._say(f"the gradient has been zero for {no_gradient} steps: the loss does not "
                      "depend on the set, is there a stop_gradient, or is all of it saturated?")
        elif self._zeros["update_norm"] >= _STEPS["update_norm"] and not no_gradient:
            self._say(f"the set has not moved for {self._zeros['update_norm']} steps, its gradient "
                      "is not zero: is a learning rate 0?")

    def _say(self, what: str) -> None:
        self._said = True
        warnings.warn(f"{self._method}: {what}", stacklevel=2)
