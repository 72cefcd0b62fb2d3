"""Gradients of the last layer, one for each real image, and never written out.

  G = g h'^T,   g = p - y,   h' = (h, 1),   <G_i, G_j> = <g_i, g_j> (1 + <h_i, h_j>)

with the class probabilities p, the one-hot label y and the last layer's input h: G is the gradient
of an image's loss in that layer's weights and biases. Two short rows say all of K (P + 1) numbers,
and a sum of many images' gradients is one matrix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import in_chunks
from dd_jax.data import Normaliser
from dd_jax.select.looks import look_at
from dd_jax.types import Network, Outputs, PyTree, RealData


class LastLayer(NamedTuple):
    """Of n images, the two factors of each one's gradient; float32.

    Attributes:
      error: g, [n, K].
      inputs: h, [n, P].
    """

    error: Any
    inputs: Any


def factors(outputs: Outputs, labels: jax.Array) -> LastLayer:
    """The factors of a batch.

    The label's entry of g is the sum of all others with the other sign: of an image whose label is
    all but sure, p_y - 1 would be 0.

    Args:
      outputs: of a network, logits [b, K] and features [b, P].
      labels: [b] int32.

    Example:
      >>> factors(Outputs(jnp.zeros((1, 2)), jnp.ones((1, 3))), jnp.array([1])).error.tolist()
      [[0.5, -0.5]]
    """
    shares = jax.nn.softmax(outputs.logits.astype(jnp.float32))
    label = jax.nn.one_hot(labels, shares.shape[1])
    others = shares * (1 - label)
    return LastLayer(others - label * jnp.sum(others, axis=1, keepdims=True),
                     outputs.features.astype(jnp.float32))


def network_gradients(
    network: Network, variables: PyTree, data: RealData, normaliser: Normaliser, *,
    block: int | None = None,
) -> LastLayer:
    """Those of all real images, NumPy arrays, looked at by blocks, see `looks.look_at`."""
    def look(variables, images, labels):
        return in_chunks(lambda part: factors(network.apply(variables, part[0]), part[1]),
                         (images, labels))

    return look_at(look, variables, data, normaliser, block=block)


def take(seen: LastLayer, rows: Any) -> LastLayer:
    """Those of some images."""
    return jax.tree.map(lambda x: x[rows], seen)


def masked(seen: LastLayer, valid: jax.Array) -> LastLayer:
    """0 in the rows of others."""
    return jax.tree.map(lambda x: jnp.where(valid[:, None], x, 0), seen)


def inner(some: LastLayer, others: LastLayer) -> jax.Array:
    """<G_i, G_j> of some [a] and others [b]: [a, b].

    Example:
      >>> seen = LastLayer(jnp.array([[1.0, -1.0], [2.0, -2.0]]), jnp.array([[1.0], [3.0]]))
      >>> inner(seen, seen).tolist()
      [[4.0, 16.0], [16.0, 80.0]]
    """
    errors, inputs = (jnp.matmul(a, b.T, precision="highest") for a, b in zip(some, others))
    return errors * (1 + inputs)


def squares(seen: LastLayer) -> jax.Array:
    """|G|^2, [n]."""
    return jnp.sum(seen.error**2, axis=1) * (1 + jnp.sum(seen.inputs**2, axis=1))


def distances(some: LastLayer, others: LastLayer) -> jax.Array:
    """|G_i - G_j|, [a, b]."""
    far = squares(some)[:, None] + squares(others) - 2 * inner(some, others)
    return jnp.sqrt(jnp.maximum(far, 0))


def unit(seen: LastLayer) -> LastLayer:
    """The same directions with |G| = 1; 0 where G is: `inner` of these are cosines."""
    length = (jnp.linalg.norm(seen.error, axis=1, keepdims=True)
              * jnp.sqrt(1 + jnp.sum(seen.inputs**2, axis=1, keepdims=True)))
    return seen._replace(error=seen.error / jnp.maximum(length, 1e-12))


def weighted_sum(seen: LastLayer, weights: jax.Array) -> jax.Array:
    """sum_i w_i G_i, one matrix [K, P + 1] with the biases last.

    Example:
      >>> seen = LastLayer(jnp.array([[1.0, -1.0], [2.0, -2.0]]), jnp.array([[1.0], [3.0]]))
      >>> weighted_sum(seen, jnp.array([1.0, 0.5])).tolist()
      [[4.0, 2.0], [-4.0, -2.0]]
    """
    error = (weights[:, None] * seen.error).T
    return jnp.concatenate([jnp.matmul(error, seen.inputs, precision="highest"),
                            jnp.sum(error, axis=1, keepdims=True)], axis=1)


def along(seen: LastLayer, total: jax.Array) -> jax.Array:
    """<G_i, M> of a matrix as `weighted_sum` gives it, [n]."""
    mapped = jnp.matmul(seen.inputs, total[:, :-1].T, precision="highest") + total[:, -1]
    return jnp.sum(seen.error * mapped, axis=1)


def like_gradients(images: int, classes: int, width: int) -> LastLayer:
    """Shapes of those of so many images."""
    return LastLayer(*(jax.ShapeDtypeStruct((images, size), np.float32)
                       for size in (classes, width)))
