"""Kernels in blocks: the memory of one block instead of all pairs, and an exact derivative.

The working memory of a convolutional kernel is megabytes per *pair* of images. So the value is
computed block by block, and the derivative in two passes: the first keeps only the images, the
second goes over the same blocks again and pulls back each block's cotangent. Nothing is
approximated; the price is one more evaluation.

A Gram matrix evaluates the blocks of its lower half only: with G the cotangent of K, block (i, j)
off the diagonal receives G_ij + G_ji^T. See `docs/kernels.md`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError
from dd_jax.kernels.block_plan import BUDGET_BYTES, even_size, plan_blocks
from dd_jax.types import Kernel

_LOGGER = logging.getLogger(__name__)


class _Functions(NamedTuple):
    pair: Callable
    gram: Callable


def _fold(x: jax.Array, size: int, *, wrap: bool = False) -> jax.Array:
    """[n, ...] -> [blocks, size, ...], filled up with the last row or with the first ones."""
    missing = -x.shape[0] % size
    if missing:
        # Either way the fill meets only images that it meets anyway: the last row meets x2, and
        # the first rows meet the last block. So no pair is singular that the whole is not.
        fill = x[:missing] if wrap else jnp.repeat(x[-1:], missing, axis=0)
        x = jnp.concatenate([x, fill])
    return x.reshape(-1, size, *x.shape[1:])


def _unfold(blocks: jax.Array, n: int) -> jax.Array:
    return blocks.reshape(-1, *blocks.shape[2:])[:n]


def _cut(matrix: jax.Array, rows: int, columns: int) -> jax.Array:
    """[n1, n2] -> [row blocks, column blocks, rows, columns], filled up with zeros."""
    n1, n2 = matrix.shape
    matrix = jnp.pad(matrix, ((0, -n1 % rows), (0, -n2 % columns)))
    grid = matrix.reshape(matrix.shape[0] // rows, rows, matrix.shape[1] // columns, columns)
    return grid.transpose(0, 2, 1, 3)


def _join(grid: jax.Array, n1: int, n2: int) -> jax.Array:
    """The inverse of `_cut`."""
    down, across, rows, columns = grid.shape
    return grid.transpose(0, 2, 1, 3).reshape(down * rows, across * columns)[:n1, :n2]


def _add(a, b):
    return jax.tree.map(jnp.add, a, b)


def _zeros(args, needed):
    return [jnp.zeros_like(x) if n else None for x, n in zip(args, needed)]


def _pull_back(fn, args, needed, cotangent):
    """The cotangents of the arguments of one block; None for those that are not needed."""
    def of_needed(*some):
        some = iter(some)
        return fn(*(next(some) if n else x for x, n in zip(args, needed)))

    bars = iter(jax.vjp(of_needed, *(x for x, n in zip(args, needed) if n))[1](cotangent))
    return [next(bars) if n else None for n in needed]


def _pair_forward(fn, rows, columns, x1, x2, *consts):
    right = _fold(x2, columns)
    grid = jax.lax.map(lambda a: jax.lax.map(lambda b: fn(a, b, *consts), right), _fold(x1, rows))
    return _join(grid, x1.shape[0], x2.shape[0])


def _pair_backward(fn, rows, columns, args, needed, cotangent):
    x1, x2, *consts = args
    left, right = _fold(x1, rows), _fold(x2, columns)

    def one_row(carry, item):
        a, cotangents = item

        def one_block(carry, item):
            b, block = item
            a_bar, b_bar, *consts_bar = _pull_back(fn, (a, b, *consts), needed, block)
            return _add(carry, (a_bar, consts_bar)), b_bar

        right_bar, consts_bar = carry
        (a_bar, consts_bar), more = jax.lax.scan(
            one_block, (*_zeros([a], needed), consts_bar), (right, cotangents)
        )
        return (_add(right_bar, more), consts_bar), a_bar

    start = (*_zeros([right], needed[1:]), _zeros(consts, needed[2:]))
    items = (left, _cut(cotangent, rows, columns))
    (right_bar, consts_bar), left_bar = jax.lax.scan(one_row, start, items)
    # Filled-up rows have cotangent zero, so what their copies receive is zero too.
    return (_unfold(left_bar, x1.shape[0]) if needed[0] else None,
            _unfold(right_bar, x2.shape[0]) if needed[1] else None, *consts_bar)


def _lower(blocks: int) -> tuple[np.ndarray, np.ndarray]:
    i, j = np.tril_indices(blocks, -1)
    return i.astype(np.int32), j.astype(np.int32)


def _gram_forward(fns, size, x, *consts):
    folded, n = _fold(x, size), x.shape[0]
    i, j = _lower(folded.shape[0])
    below = jax.lax.map(lambda ij: fns.pair(folded[ij[0]], folded[ij[1]], *consts), (i, j))
    diagonal = jax.lax.map(lambda a: fns.gram(a, *consts), _fold(x, size, wrap=True))
    every = np.arange(folded.shape[0])
    grid = jnp.zeros((len(every), len(every), size, size), diagonal.dtype)
    grid = grid.at[every, every].set(diagonal)
    grid = grid.at[i, j].set(below).at[j, i].set(below.transpose(0, 2, 1))
    return _join(grid, n, n)


def _gram_backward(fns, size, args, needed, cotangent):
    x, *consts = args
    folded, n = _fold(x, size), x.shape[0]
    i, j = _lower(folded.shape[0])
    grid = _cut(cotangent + cotangent.T, size, size)
    every = np.arange(folded.shape[0])

    def on_diagonal(consts_bar, item):
        images, block = item
        x_bar, *more = _pull_back(fns.gram, (images, *consts), needed, 0.5 * block)
        return _add(consts_bar, more), x_bar

    def off_diagonal(carry, item):
        i, j, block = item
        x_bar, consts_bar = carry
        both = (folded[i], folded[j], *consts)
        a_bar, b_bar, *more = _pull_back(fns.pair, both, needed[:1] + needed, block)
        if needed[0]:
            x_bar = x_bar.at[i].add(a_bar).at[j].add(b_bar)
        return (x_bar, _add(consts_bar, more)), None

    items = (_fold(x, size, wrap=True), grid[every, every])
    consts_bar, x_bar = jax.lax.scan(on_diagonal, _zeros(consts, needed[1:]), items)
    (x_bar, consts_bar), _ = jax.lax.scan(off_diagonal, (x_bar, consts_bar), (i, j, grid[i, j]))
    return (_unfold(x_bar, n) if needed[0] else None, *consts_bar)


def _two_pass(forward_blocks: Callable, backward_blocks: Callable) -> Callable:
    """A function of arrays with the rule that keeps its arguments and nothing else."""
    fn = jax.custom_vjp(forward_blocks)

    def forward(*args):
        # Which arguments want a derivative is static: it travels in the residuals' structure.
        needed = tuple(() if x.perturbed else None for x in args)
        values = tuple(x.value for x in args)
        return fn(*values), (values, needed)

    def backward(saved, cotangent):
        values, needed = saved
        if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
            return (None,) * len(values)
        return backward_blocks(values, tuple(mark is not None for mark in needed), cotangent)

    fn.defvjp(forward, backward, symbolic_zeros=True)
    return fn


def _two_pass_pair(kernel: Kernel, rows: int, columns: int, x1: jax.Array, x2: jax.Array):
    # What the kernel closes over (a step's random weights, say) becomes an argument.
    fn, consts = jax.closure_convert(kernel.pair, x1[:rows], x2[:columns])
    two_pass = _two_pass(partial(_pair_forward, fn, rows, columns),
                         partial(_pair_backward, fn, rows, columns))
    return two_pass(x1, x2, *consts)


def _two_pass_gram(kernel: Kernel, size: int, x: jax.Array):
    block = x[:size]
    pair, pair_consts = jax.closure_convert(kernel.pair, block, block)
    gram, gram_consts = jax.closure_convert(kernel.gram, block)
    cut = len(pair_consts)
    fns = _Functions(lambda a, b, *consts: pair(a, b, *consts[:cut]),
                     lambda a, *consts: gram(a, *consts[cut:]))
    two_pass = _two_pass(partial(_gram_forward, fns, size), partial(_gram_backward, fns, size))
    return two_pass(x, *pair_consts, *gram_consts)


@functools.lru_cache(maxsize=256)
def _say_once(line: str) -> None:
    # A program is traced several times; its plan is worth one line.
    _LOGGER.info(line)


def _check_block(block) -> tuple[int, int] | None:
    if block is None:
        return None
    sizes = block if isinstance(block, (tuple, list)) else (block, block)
    if len(sizes) != 2 or not all(isinstance(s, int) and s >= 1 for s in sizes):
        raise ConfigError(f"block is {block!r}, expected a positive integer or two of them",
                          fix="pass block=(rows, columns), or None to plan it from the memory")
    return tuple(sizes)


def blockwise(
    kernel: Kernel, *, block: int | tuple[int, int] | None = None,
    budget_bytes: int = BUDGET_BYTES,
) -> Kernel:
    """The same kernel, evaluated and differentiated block by block.

    Sizes need not divide. Where everything fits in one block, the kernel is called as it is.
    Between the passes only the images are kept; images that want no derivative (behind
    `stop_gradient`, or not differentiated) get none computed.

    Args:
      kernel: what to evaluate. Arrays that it closes over are differentiated like the images.
      block: images per side of a block, or (rows, columns); None to plan it from
        `kernel.pair_bytes` and the budget. A Gram matrix uses the smaller side for both.
      budget_bytes: working memory of one block, in bytes.

    Returns:
      A `Kernel` equal to the given one up to rounding; derivatives in reverse mode only.

    Raises:
      ConfigError: a bad block or, when it is called, a budget below one pair.

    Example:
      >>> import jax.numpy as jnp
      >>> from dd_jax.kernels.functions import as_kernel
      >>> linear = as_kernel(lambda a, b: jnp.einsum("ihwc,jhwc->ij", a, b), name="linear")
      >>> x = jnp.arange(5.0).reshape(5, 1, 1, 1)
      >>> blockwise(linear, block=2)(x)[4].tolist()
      [0.0, 4.0, 8.0, 12.0, 16.0]
    """
    sizes = _check_block(block)

    def plan(x1, x2):
        if sizes is not None:
            return min(sizes[0], len(x1)), min(sizes[1], len(x2))
        made = plan_blocks(kernel, len(x1), len(x2), x1.shape[1:], budget_bytes,
                           dtype=jnp.result_type(x1, x2))
        if made.blocks > 1:
            _say_once(made.describe())
        return made[:2]

    def pair(x1, x2):
        rows, columns = plan(x1, x2)
        if rows >= len(x1) and columns >= len(x2):
            return kernel.pair(x1, x2)
        return _two_pass_pair(kernel, rows, columns, x1, x2)

    def gram(x):
        size = min(plan(x, x))
        if size >= len(x):
            return kernel.gram(x)
        return _two_pass_gram(kernel, even_size(len(x), size), x)

    # Whatever is left to grow with the number of pairs is the result and its cotangent.
    return Kernel(pair=pair, gram=gram, pair_bytes=lambda shape: 8, name=kernel.name)
