"""The plain layout [n1, n2]: programs that flatten their images at once, see `docs/kernels.md`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.kernels.plan import Program
from dd_jax.kernels.positions import Pair, affine
from dd_jax.kernels.relu import rectify, scale_of


def _rows(images):
    return images.reshape(images.shape[0], -1)


def _products(rows1, rows2):
    dots = jnp.matmul(rows1, rows2.T, precision=jax.lax.Precision.HIGHEST)
    return dots / rows1.shape[1]


def _variances(program: Program, rows) -> tuple[list, jax.Array]:
    """Variances [n] at each rectifier."""
    variance, found = (rows * rows).sum(1) / rows.shape[1], []
    for layer in program.head:
        if layer.op == "relu":
            found.append(variance)
            variance = variance / 2
        else:
            variance = layer.bias + layer.weight * variance
    return found


def _head(program: Program, pair: Pair, scales1, scales2, *, ntk: bool, same=None) -> Pair:
    used = 0
    for layer in program.head:
        if layer.op == "relu":
            pair = Pair(*rectify(*pair, scales1[used], scales2[used], same))
            used += 1
        else:
            pair = affine(layer, pair, ntk=ntk, spread=lambda a: a)
    return pair


def plain_pair(program: Program, images1, images2, *, ntk: bool) -> Pair:
    """K and Theta of all pairs, [n1, n2]."""
    rows1, rows2 = _rows(images1), _rows(images2)
    scales1 = [scale_of(v[:, None]) for v in _variances(program, rows1)]
    scales2 = [scale_of(v[None, :]) for v in _variances(program, rows2)]
    return _head(program, Pair(_products(rows1, rows2)), scales1, scales2, ntk=ntk)


def plain_gram(program: Program, images, *, ntk: bool) -> Pair:
    """K and Theta of images with themselves, [n, n]: symmetric, theta = 0 on the diagonal."""
    rows = _rows(images)
    same = jnp.eye(rows.shape[0], dtype=bool)
    squares = (rows * rows).sum(1) / rows.shape[1]
    products = jnp.where(same, squares[:, None], _products(rows, rows))
    variances = _variances(program, rows)
    scales1 = [scale_of(v[:, None]) for v in variances]
    scales2 = [scale_of(v[None, :]) for v in variances]
    pair = _head(program, Pair(products), scales1, scales2, ntk=ntk, same=same)
    return jax.tree.map(lambda a: (a + a.T) / 2, pair)
