"""A list of layers becomes a `Kernel`: the layout is chosen by walking the list backwards.

  flatten first               [n1, n2]                                  fully connected
  flatten after convolutions  offsets in a band, often just 0           Conv-L, ConvNet
  global average pool         all offsets                               ConvNet with "gap", Myrtle

The recurrences and the layouts are explained in `docs/kernels.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, unknown
from dd_jax.kernels.dense import plain_gram, plain_pair
from dd_jax.kernels.layers import Layer
from dd_jax.kernels.pairs import (
    group_size,
    over_images,
    over_pairs,
    rectangle,
    triangle,
    triangle_number,
)
from dd_jax.kernels.plan import Program, grids, parse, state_elements, variances_program
from dd_jax.kernels.positions import Pair, run_pairs, run_variances
from dd_jax.kernels.relu import scale_of
from dd_jax.types import Kernel

KINDS = ("ntk", "nngp")


def program(layers: Sequence[Layer], kind: str = "ntk", *, name: str = "") -> Kernel:
    """The kernel of an infinitely wide network, in closed form.

    NNGP: the covariance K of the outputs at initialisation. NTK: Theta, the inner product of their
    gradients, in the 'ntk' parameterization.

    Args:
      layers: see `dd_jax.kernels.layers`.
      kind: "ntk" or "nngp".
      name: for tables; the operations of the list where empty.

    Returns:
      A `Kernel`. First-order reverse mode differentiates it; memory does not grow with the number
      of pairs. Forward mode is not defined.

    Raises:
      ConfigError: an impossible list or an unknown kind; at the call, images of the wrong shape or
        too small for the pools.

    Example:
      >>> from dd_jax.kernels.layers import conv, dense, flatten, relu
      >>> kernel = program([conv(), relu(), flatten(), dense()], "nngp")
      >>> kernel(jnp.ones((2, 4, 4, 1))).shape
      (2, 2)

    References:
      Jacot et al., arXiv:1806.07572; Arora et al., arXiv:1904.11955.
    """
    if kind not in KINDS:
        raise unknown("kind of kernel", kind, KINDS)
    parsed, ntk = parse(layers), kind == "ntk"

    def pair(x1, x2):
        return _chosen(_pair(parsed, *_checked(parsed, x1, x2), ntk), ntk)

    def gram(x):
        return _chosen(_gram(parsed, _checked(parsed, x, x)[0], ntk), ntk)

    return Kernel(
        pair=pair,
        gram=gram,
        pair_bytes=lambda shape: _pair_bytes(parsed, shape, ntk),
        name=name or "-".join([kind, *(layer.op for layer in layers)]),
    )


def nngp_and_ntk(layers: Sequence[Layer], x1, x2=None) -> tuple[jax.Array, jax.Array]:
    """Both kernels in one pass, for the price of the NTK.

    Args:
      layers: see `dd_jax.kernels.layers`.
      x1: [n1, H, W, C] float.
      x2: [n2, H, W, C] of the same dtype; None for `x1` with itself, as in `Kernel.gram`.

    Returns:
      (NNGP [n1, n2], NTK [n1, n2]).

    Raises:
      ConfigError: as in `program`.
    """
    parsed = parse(layers)
    if x2 is None:
        made = _gram(parsed, _checked(parsed, x1, x1)[0], True)
    else:
        made = _pair(parsed, *_checked(parsed, x1, x2), True)
    return made.cov, _chosen(made, True)


def _chosen(pair: Pair, ntk: bool):
    if not ntk:
        return pair.cov
    return jnp.zeros_like(pair.cov) if pair.tangent is None else pair.tangent


def _checked(parsed: Program, x1, x2) -> tuple[jax.Array, jax.Array]:
    x1, x2 = jnp.asarray(x1), jnp.asarray(x2)
    for x in (x1, x2):
        if x.ndim != 4 or x.shape[1:] != x1.shape[1:]:
            raise ConfigError(
                f"images of shapes {tuple(x1.shape)} and {tuple(x2.shape)}, expected [n1, H, W, C] "
                "and [n2, H, W, C]",
                fix="add the axis of channels, or make the shapes equal",
            )
        if x.dtype not in (jnp.float32, jnp.float64) or x.dtype != x1.dtype:
            raise ConfigError(
                f"images of dtypes {x1.dtype} and {x2.dtype}, expected float32 or float64, the "
                "same for both",
                fix="normalise the images first, or cast them",
            )
    grids(parsed, x1.shape[1:3])
    return x1, x2


def _size(parsed: Program, total: int, x) -> int:
    height, width = x.shape[1:3]
    tensors, item = 2, x.dtype.itemsize  # K and Theta
    state = tensors * item * state_elements(grids(parsed, (height, width)))
    return group_size(total, height * width * item, state)


def _scales(parsed: Program, x):
    """One `Scale` per rectifier, [n, h, w] or [n]."""
    short = variances_program(parsed)
    size = _size(short, x.shape[0], x)
    return [scale_of(v) for v in over_images(lambda rows: run_variances(short, rows), x, size=size)]


def _values(parsed: Program, ntk: bool, *, selves: bool):
    def values(side1, side2, same):
        flags = same if selves else None
        return run_pairs(parsed, side1[0], side2[0], side1[1], side2[1], ntk=ntk, same=flags)

    return values


def _pair(parsed: Program, x1, x2, ntk: bool) -> Pair:
    if parsed.plain:
        return plain_pair(parsed, x1, x2, ntk=ntk)
    sides = (x1, _scales(parsed, x1)), (x2, _scales(parsed, x2))
    n1, n2 = x1.shape[0], x2.shape[0]
    fn, size = _values(parsed, ntk, selves=False), _size(parsed, n1 * n2, x1)
    made = over_pairs(fn, rectangle(n2), n1 * n2, sides, size=size)
    return jax.tree.map(lambda a: a.reshape(n1, n2), made)


def _gram(parsed: Program, x, ntk: bool) -> Pair:
    if parsed.plain:
        return plain_gram(parsed, x, ntk=ntk)
    side, n = (x, _scales(parsed, x)), x.shape[0]
    total = n * (n + 1) // 2
    fn, size = _values(parsed, ntk, selves=True), _size(parsed, total, x)
    made = over_pairs(fn, triangle(n), total, (side, side), size=size)
    number = triangle_number(n)
    return jax.tree.map(lambda a: a[number], made)


def _pair_bytes(parsed: Program, shape: tuple[int, int, int], ntk: bool) -> int:
    """Bytes that one more pair adds to a call, in float32: groups run one after another.

    A plain program keeps a few [n1, n2] arrays per layer for its derivative. The others keep their
    result and its cotangent, and for each image the variances at its rectifiers, of which a pair
    has a share: a fifth of an image, for blocks of ten by ten images.
    """
    if parsed.plain:
        return 4 * (2 + ntk) * (1 + len(parsed.head))
    positions = shape[0] * shape[1]
    per_image = 4 * positions * (2 * shape[2] + 4 * parsed.rectifiers)
    return 16 + per_image // 5
