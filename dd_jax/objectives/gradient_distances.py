"""Distances of two gradients of one network: trees like its parameters.

A row of a weight holds all that feeds one output unit; outputs are the last axis.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, unknown
from dd_jax.types import PyTree


def _pairs(real: PyTree, synthetic: PyTree, *, ndim: tuple[int, ...]) -> list[tuple]:
    """Leaves of both with one of these numbers of axes, as matrices [inputs, outputs]."""
    pairs = [(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]))
             for a, b in zip(jax.tree.leaves(real), jax.tree.leaves(synthetic)) if a.ndim in ndim]
    if not pairs:
        raise ConfigError(f"the network has no weights with {ndim} axes, which the distance is of",
                          fix="use distance='row_cosine' or 'squared', or a ConvNet")
    return pairs


def row_cosine(real: PyTree, synthetic: PyTree) -> jax.Array:
    """DC's distance: sum over weights W and rows o of 1 - <g, s> / (|g| |s| + 1e-6).

    Biases and the scales and shifts of normalisations, which have one axis, do not count.

    Args:
      real: gradient tree g.
      synthetic: gradient tree s; the distance is differentiable in it, also where a row is zero.

    Returns:
      [] float.

    Example:
      >>> row_cosine({"w": jnp.eye(2)}, {"w": -jnp.eye(2)}).round(3).item()
      4.0
    """
    total = 0.0
    for a, b in _pairs(real, synthetic, ndim=(2, 3, 4)):
        product = jnp.sum(a * b, axis=0)
        total = total + jnp.sum(1 - product / (_norm(a) * _norm(b) + 1e-6))
    return total


def cosine(real: PyTree, synthetic: PyTree) -> jax.Array:
    """One minus the cosine of the whole gradients, biases and normalisations included.

    The arguments are those of `row_cosine`.

    Example:
      >>> cosine({"b": jnp.ones(4)}, {"b": 3 * jnp.ones(4)}).round(3).item()
      0.0
    """
    a, b = (_flat(tree) for tree in (real, synthetic))
    return 1 - jnp.sum(a * b) / (_norm(a)[0] * _norm(b)[0] + 1e-6)


def squared(real: PyTree, synthetic: PyTree) -> jax.Array:
    """Squared distance of the whole gradients. The arguments are those of `row_cosine`."""
    return jnp.sum((_flat(real) - _flat(synthetic)) ** 2)


def conv_squared(real: PyTree, synthetic: PyTree) -> jax.Array:
    """IDC's distance for colour images: squared differences of the convolution weights, summed.

    The arguments are those of `row_cosine`; the classifier's weights do not count.
    """
    return sum(jnp.sum((a - b) ** 2) for a, b in _pairs(real, synthetic, ndim=(4,)))


def conv_absolute(real: PyTree, synthetic: PyTree) -> jax.Array:
    """IDC's distance for grey images: absolute differences of the convolution weights, summed.

    The arguments are those of `row_cosine`; the classifier's weights do not count.
    """
    return sum(jnp.sum(jnp.abs(a - b)) for a, b in _pairs(real, synthetic, ndim=(4,)))


Distance = Callable[[PyTree, PyTree], jax.Array]
DISTANCES: dict[str, Distance] = {
    "row_cosine": row_cosine,
    "cosine": cosine,
    "squared": squared,
    "conv_squared": conv_squared,
    "conv_absolute": conv_absolute,
}


def distance_named(name: str) -> Distance:
    """The distance of that name in `DISTANCES`.

    Raises:
      ConfigError: unknown name.
    """
    if name not in DISTANCES:
        raise unknown("gradient distance", name, DISTANCES)
    return DISTANCES[name]


def _flat(tree: PyTree) -> jax.Array:
    """All leaves as one column [numbers, 1]."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])[:, None]


def _norm(x: jax.Array) -> jax.Array:
    """[n, outputs] -> [outputs] Euclidean norms, with derivative 0 where they are 0."""
    square = jnp.sum(x * x, axis=0)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
