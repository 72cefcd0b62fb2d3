"""How far the features of a class's real images are from those of its synthetic ones.

A `Discrepancy` says what is kept of each image and how two such collections are compared; where
that happens at some points of a dual space (frequencies), a `Probe` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Optional

import jax
import optax

from dd_jax.types import Outputs, PyTree


class Probe(NamedTuple):
    """Where a discrepancy looks; drawn anew for every class and step, and learned if it may be.

    Attributes:
      init: (key, like) -> params, where `like` is what `collect` keeps of a batch, as shapes.
      draw: (params, key) -> pytree, given to `compare`; differentiable in the params.
      optimizer: makes the discrepancy larger, a step after each step of the synthetic set; None
        for a probe that is not learned.
    """

    init: Callable[..., PyTree]
    draw: Callable[[PyTree, jax.Array], PyTree]
    optimizer: Optional[optax.GradientTransformation] = None


class Discrepancy(NamedTuple):
    """A distance between two collections of images as a network sees them.

    Attributes:
      collect: (outputs) -> pytree of [b, ...]: what is kept of each image of a batch.
      compare: (real, synthetic, drawn) -> scalar; the two are what `collect` keeps of n1 and n2
        images, or its means over images where `means` is true. Differentiable in `synthetic`.
      means: whether means are all that it compares; then nothing else of real images is stored.
      probe: where it looks, or None; `compare` is given what it drew, without one ().
    """

    collect: Callable[[Outputs], PyTree]
    compare: Callable[[PyTree, PyTree, PyTree], jax.Array]
    means: bool = False
    probe: Optional[Probe] = None
