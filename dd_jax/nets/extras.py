"""What can train beside a network, see `nets.extended`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_whole
from dd_jax.nets.extended import Extra
from dd_jax.nets.layers import torch_uniform
from dd_jax.types import Outputs, PyTree


def orthogonal_map(raw: jax.Array, rows: int, columns: int) -> jax.Array:
    """A [rows, columns] of orthonormal columns, or of orthonormal rows where it is the wider.

    The corner of Cayley's map of a skew matrix, (I + W)^-1 (I - W) with W = raw - raw^T: it is
    orthogonal whatever `raw` [n, n] is, n the larger side, and I + W never singular.

    Example:
      >>> a = orthogonal_map(jax.random.normal(jax.random.key(0), (3, 3)), 3, 2)
      >>> jnp.allclose(a.T @ a, jnp.eye(2), atol=1e-5)
      Array(True, dtype=bool)
    """
    eye, skew = jnp.eye(raw.shape[0], dtype=raw.dtype), raw - raw.T
    return jnp.linalg.solve(eye + skew, eye - skew)[:rows, :columns]


def orthogonal_projection(student: int, teacher: int) -> Extra:
    """VkD's projection of the student's features to the teacher's width by an orthonormal map.

    Outputs: features A^T, [B, teacher], A of `orthogonal_map`; no bias.

    Args:
      student, teacher: widths of their features.

    Raises:
      ConfigError: a width that cannot be; where it is used, features of another.

    Example:
      >>> extra = orthogonal_projection(3, 5)
      >>> outputs = Outputs(None, jnp.ones((2, 3)))
      >>> extra.apply(extra.init(jax.random.key(0)), outputs).shape
      (2, 5)
    """
    _check_widths(student=student, teacher=teacher)
    side = max(student, teacher)

    def init(key):
        return {"raw": jax.random.normal(key, (side, side)) * side**-0.5}

    def apply(params: PyTree, outputs: Outputs) -> jax.Array:
        features = _features(outputs, student)
        matrix = orthogonal_map(params["raw"], teacher, student)
        return jnp.matmul(features, matrix.T, precision="highest")

    return Extra(init, apply, "an orthogonal projection")


def linear_projection(student: int, teacher: int) -> Extra:
    """A dense layer from the student's features to the teacher's width: [B, teacher].

    Raises:
      ConfigError: a width that cannot be; where it is used, features of another.

    Example:
      >>> extra = linear_projection(3, 5)
      >>> extra.apply(extra.init(jax.random.key(0)), Outputs(None, jnp.ones((2, 3)))).shape
      (2, 5)
    """
    _check_widths(student=student, teacher=teacher)

    def apply(params: PyTree, outputs: Outputs) -> jax.Array:
        return _dense(params, _features(outputs, student))

    return Extra(lambda key: _dense_init(key, student, teacher), apply, "a linear projection")


def second_head(width: int, classes: int) -> Extra:
    """Dual-Head KD's second linear head on the same features: logits [B, K].

    Raises:
      ConfigError: a width that cannot be; where it is used, features of another.

    Example:
      >>> extra = second_head(3, 2)
      >>> extra.apply(extra.init(jax.random.key(0)), Outputs(None, jnp.ones((4, 3)))).shape
      (4, 2)
    """
    _check_widths(width=width, classes=classes)
    return linear_projection(width, classes)._replace(name="a second head")


def discriminator(classes: int, *, factor: int = 8) -> Extra:
    """MEAL V2's discriminator of logits: dense layers K -> K/f -> K/f^2 -> 2, each with ReLU.

    Its outputs are its own parameters, since the loss asks it about the teacher's logits, too, see
    `discriminate`. No hidden layer is narrower than 2, which fewer than f^2 classes would give.

    Args:
      classes: K.
      factor: f by which each layer is narrower.

    Raises:
      ConfigError: a number that cannot be; where it is used, other classes.

    Example:
      >>> params = discriminator(1000).init(jax.random.key(0))
      >>> [layer["kernel"].shape for layer in params]
      [(1000, 125), (125, 15), (15, 2)]
    """
    require_whole("classes", classes, example=10)
    require_whole("factor", factor, example=8)
    widths = (classes, max(classes // factor, 2), max(classes // factor**2, 2), 2)

    def init(key):
        keys = jax.random.split(key, 3)
        return tuple(map(_dense_init, keys, widths[:-1], widths[1:]))

    def apply(params: PyTree, outputs: Outputs) -> PyTree:
        if outputs.logits.shape[-1] != classes:
            raise ConfigError(f"the network has {outputs.logits.shape[-1]} classes, its "
                              f"discriminator {classes}", fix="build both for the same classes")
        return params

    return Extra(init, apply, "a discriminator")


def discriminate(params: PyTree, logits: jax.Array, *, rectified: bool = True) -> jax.Array:
    """What MEAL V2's discriminator says of logits [B, K]: [B, 2] for "student" and "teacher".

    Args:
      params: of a `discriminator`.
      logits: of a student or a teacher.
      rectified: whether the last layer has its ReLU, as in the official code.

    Example:
      >>> params = discriminator(4).init(jax.random.key(0))
      >>> discriminate(params, jnp.ones((3, 4))).shape
      (3, 2)
    """
    hidden = jax.nn.relu(_dense(params[0], logits))
    said = _dense(params[2], jax.nn.relu(_dense(params[1], hidden)))
    return jax.nn.relu(said) if rectified else said


def _dense_init(key: jax.Array, width: int, units: int) -> PyTree:
    kernel_key, bias_key = jax.random.split(key)
    draw = torch_uniform(width)
    return {"kernel": draw(kernel_key, (width, units)), "bias": draw(bias_key, (units,))}


def _dense(params: PyTree, x: jax.Array) -> jax.Array:
    return x @ params["kernel"] + params["bias"]


def _check_widths(**widths: int) -> None:
    for name, width in widths.items():
        require_whole(name, width, example=128)


def _features(outputs: Outputs, width: int) -> jax.Array:
    if outputs.features.shape[-1] != width:
        raise ConfigError(f"the network has {outputs.features.shape[-1]} features, what trains "
                          f"beside it expects {width}", fix="build it with the network's width")
    return outputs.features
