"""The selectors that look at gradients of the last layer, each a rule with its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from dd_jax.errors import require_at_least_zero, require_whole
from dd_jax.select.craig import craig as picks
from dd_jax.select.facility_location import block_of
from dd_jax.select.gradient_matching import gradient_matching
from dd_jax.select.gradients import LastLayer
from dd_jax.select.influence import influence
from dd_jax.select.memory import (
    NUMBER,
    Bytes,
    Memory,
    Phase,
    Sizes,
    known_gradients,
    of_gradients,
)
from dd_jax.select.quantization import quantized
from dd_jax.select.selector import Selector
from dd_jax.types import RealData


def gradients_of(data: RealData, have: Mapping[str, Any], key: jax.Array) -> LastLayer:
    """The artefact "gradients" as it is."""
    return have["gradients"]


def _of_gradients(
    choose: Callable, *, drawn: bool = False, host: Callable[[Sizes], Bytes] = known_gradients,
    phase: Phase | None = None, blocked: Callable[[int], Selector] | None = None,
) -> Selector:
    memory = Memory(host, {"choice": phase or Phase(of_gradients(8))})
    return Selector(gradients_of, choose, needs=("gradients",), drawn=drawn, memory=memory,
                    blocked=blocked)


def craig(block: int | None = None) -> Selector:
    """Picks that stand for the images nearest to them, see `craig.craig`."""
    candidates = Phase(  # two products of all pairs of a block, and their distances
        of_gradients(8), block=lambda sizes: block_of(sizes.group),
        row=lambda sizes: NUMBER * (3 * sizes.group + sizes.classes + sizes.width))
    return _of_gradients(partial(picks, block=block), phase=candidates, blocked=craig)


def grad_match(ridge: float = 1.0) -> Selector:
    """Weighted gradients that sum to the mean one, see `gradient_matching.gradient_matching`.

    Raises:
      ConfigError: a ridge below 0.
    """
    require_at_least_zero("ridge", ridge)

    def host(sizes: Sizes) -> Bytes:  # the system of the chosen, in float64
        row = 2 * sizes.count + sizes.classes + sizes.width
        return {**known_gradients(sizes), "system": 8 * sizes.count * row}

    return _of_gradients(partial(gradient_matching, ridge=ridge), host=host)


def dq(bins: int = 10, weight: float = 1.0) -> Selector:
    """A share of each bin of a graph cut, see `quantization.quantized`.

    Raises:
      ConfigError: less than one bin, a weight below 0.
    """
    require_whole("bins", bins, example=10)
    require_at_least_zero("weight", weight)
    return _of_gradients(partial(quantized, bins=bins, weight=weight), drawn=True)


OF_GRADIENTS: Mapping[str, Callable[[], Selector]] = {
    "craig": craig, "dq": dq, "grad_match": grad_match, "influence_distillation": influence,
}
