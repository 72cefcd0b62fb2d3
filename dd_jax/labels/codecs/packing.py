"""Whole numbers of n bits as bytes, the lowest bit first, without room between them."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` numbers of so many bits.

    Example:
      >>> packed_bytes(10, 3)
      4
    """
    return -(-count * bits // 8)


def pack(numbers: jax.Array, bits: int) -> jax.Array:
    """Numbers [..., K] in 0..2^bits - 1 -> [..., bytes] uint8; bit b of number i is bit n i + b.

    The same as `numpy.packbits(..., bitorder="little")` of the bits.

    Example:
      >>> pack(jnp.array([1, 2, 3]), 4).tolist()
      [33, 3]
    """
    each = (numbers.astype(jnp.int32)[..., None] >> jnp.arange(bits)) & 1
    flat = each.reshape(*numbers.shape[:-1], numbers.shape[-1] * bits)
    spare = -flat.shape[-1] % 8
    flat = jnp.pad(flat, ((0, 0),) * (flat.ndim - 1) + ((0, spare),))
    octets = flat.reshape(*flat.shape[:-1], -1, 8)
    return jnp.sum(octets << jnp.arange(8), axis=-1).astype(jnp.uint8)


def unpack(octets: jax.Array, count: int, bits: int) -> jax.Array:
    """What `pack` packed: [..., bytes] uint8 -> [..., count] int32.

    Example:
      >>> unpack(pack(jnp.array([1, 2, 3]), 4), 3, 4).tolist()
      [1, 2, 3]
    """
    flat = (octets.astype(jnp.int32)[..., None] >> jnp.arange(8)) & 1
    flat = flat.reshape(*octets.shape[:-1], -1)[..., : count * bits]
    each = flat.reshape(*octets.shape[:-1], count, bits)
    return jnp.sum(each << jnp.arange(bits), axis=-1)
