"""How far images are from the boundary of a network's decision, step by linear step.

With logits f, the first prediction a and x = image + (1 + overshoot) moved, a step is towards the
boundary that is nearest where the logits are taken for linear:

  w_c = grad (f_c - f_a)     c* = argmin_c (f_a - f_c) / |w_c|
  moved += (f_a - f_c*) w_c* / |w_c*|^2

until the prediction changes. The distance is |moved|, which is exact for linear logits.

Source: Moosavi-Dezfooli, Fawzi and Frossard, DeepFool, CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import chunk_size, in_chunks
from dd_jax.data import Normaliser
from dd_jax.select.looks import look_at
from dd_jax.select.memory import of_scores
from dd_jax.select.selector import Selector
from dd_jax.select.selectors import by_rule
from dd_jax.types import Network, PyTree, RealData

MOST_IMAGES = 256  # whose activations are kept at once on an accelerator
_FLAT = 1e-24  # squared slopes below it lead nowhere in float32


class Boundary(NamedTuple):
    """Of N images.

    Attributes:
      distance: |moved| in model space, [N] float32.
      crossed: whether the prediction changed, or the image is on the boundary, [N] bool.
    """

    distance: Any
    crossed: Any


def to_boundary(
    logits: Callable[[jax.Array], jax.Array], images: jax.Array, *, steps: int = 50,
    overshoot: float = 0.02,
) -> Boundary:
    """The distance of each image; one that has crossed moves no more, and the last ends the loop.

    Args:
      logits: images [b, H, W, C] -> [b, K], each row of its own image.
      images: in model space.
      steps: at most.
      overshoot: by which it goes beyond the boundary, as a share; the distance is without it.

    Returns:
      `Boundary` of the b images.

    Example:
      >>> weights = jnp.array([[3.0, -3.0], [4.0, -4.0]])  # |w| = 10
      >>> found = to_boundary(lambda x: x.reshape(1, 2) @ weights, jnp.ones((1, 1, 2, 1)))
      >>> round(float(found.distance[0]), 4), bool(found.crossed[0])
      (1.4, True)
    """
    begin = logits(images)
    first, labels = jnp.argmax(begin, axis=1), jnp.arange(begin.shape[1])
    one = jax.nn.one_hot(first, len(labels), dtype=begin.dtype)

    def wide(values):
        return values.reshape(-1, *(1,) * (images.ndim - 1))

    def step(carry):
        i, moved, crossed = carry
        out, back = jax.vjp(logits, images + (1 + overshoot) * moved)
        lead = jnp.sum(out * one, axis=1)

        def towards(best, label):  # one class at a time: never the slopes of all of them
            slope = back(jax.nn.one_hot(label, len(labels), dtype=out.dtype) - one)[0]
            square = jnp.sum(slope**2, axis=tuple(range(1, slope.ndim)))
            leads = (label != first) & (square > _FLAT)
            far = jnp.where(leads, (lead - out[:, label]) / jnp.sqrt(jnp.where(leads, square, 1)),
                            jnp.inf)
            move = slope * wide(far / jnp.sqrt(jnp.where(leads, square, 1)))
            nearer = far < best[0]
            return (jnp.where(nearer, far, best[0]), jnp.where(wide(nearer), move, best[1])), None

        start = jnp.full(len(images), jnp.inf), jnp.zeros_like(images)
        (far, move), _ = jax.lax.scan(towards, start, labels)
        moved = jnp.where(wide(crossed), moved, moved + move)
        now = jnp.argmax(logits(images + (1 + overshoot) * moved), axis=1)
        return i + 1, moved, crossed | (now != first) | (far == 0)

    def goes_on(carry):
        return (carry[0] < steps) & ~jnp.all(carry[2])

    none = jnp.zeros(len(images), bool)
    _, moved, crossed = jax.lax.while_loop(goes_on, step, (0, jnp.zeros_like(images), none))
    return Boundary(jnp.sqrt(jnp.sum(moved**2, axis=tuple(range(1, moved.ndim)))), crossed)


def boundaries(
    network: Network, variables: PyTree, data: RealData, normaliser: Normaliser, *,
    steps: int = 50, overshoot: float = 0.02, block: int | None = None,
) -> Boundary:
    """`to_boundary` of all real images, NumPy; `block` as for `looks.look_at`."""
    def look(variables, images, labels):
        return in_chunks(
            lambda part: to_boundary(lambda x: network.apply(variables, x).logits, part,
                                     steps=steps, overshoot=overshoot),
            images, size=min(MOST_IMAGES, chunk_size(len(images))))

    return look_at(look, variables, data, normaliser, block=block)


def nearness(found: Boundary) -> np.ndarray:
    """[N], minus the distance; images that never crossed come after all that did.

    Example:
      >>> nearness(Boundary(np.float32([2, 1, 0]), np.array([True, True, False]))).tolist()
      [-2.0, -1.0, -3.0]
    """
    distance, crossed = np.asarray(found.distance), np.asarray(found.crossed)
    last = 1 + distance[crossed].max(initial=0)
    return -np.where(crossed, distance, last + distance)


def deepfool(order: str = "top") -> Selector:
    """The selector of images by their distance to the boundary.

    Args:
      order: "top" takes the nearest images, which are the hardest.

    Raises:
      ConfigError: an unknown order.

    Example:
      >>> deepfool().needs
      ('boundary',)
    """
    def scored(data: RealData, have: Mapping[str, Any], key: jax.Array) -> np.ndarray:
        return np.asarray(nearness(have["boundary"]), np.float32)

    return Selector(scored, by_rule(order), needs=("boundary",),
                    memory=of_scores(lambda sizes: {"boundary": 5 * sizes.images,
                                                    "score": 2 * 8 * sizes.images}))
