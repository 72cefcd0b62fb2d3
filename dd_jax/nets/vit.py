"""ViT-tiny for small images: patches of 4x4, a class token, learned positions.

Images whose sides are no multiples of 4 are filled up with zeros at the bottom and on the right.

Differs from the official code: there is no dropout and no stochastic depth. Taps are the tokens of
patches as maps, after each quarter of the blocks, since there are no stages.

Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; the sizes are those of Touvron
et al., Training Data-Efficient Image Transformers, ICML 2021.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_whole
from dd_jax.nets.checks import check_width
from dd_jax.nets.record import from_linen
from dd_jax.types import DataSpec, Network

_PATCH, _HEAD, _TAPS = 4, 64, 4
_SMALL = nn.initializers.truncated_normal(0.02)


def patches(x: jax.Array, side: int) -> jax.Array:
    """The pixels of each square, row after row.

    Args:
      x: [B, H, W, C].
      side: of the squares, in pixels.

    Returns:
      [B, ceil(H / side), ceil(W / side), side * side * C].

    Example:
      >>> patches(jnp.arange(6.0).reshape(1, 2, 3, 1), 2)[0, 0].tolist()
      [[0.0, 1.0, 3.0, 4.0], [2.0, 0.0, 5.0, 0.0]]
    """
    batch, height, width, channels = x.shape
    rows, cols = -(-height // side), -(-width // side)
    x = jnp.pad(x, ((0, 0), (0, rows * side - height), (0, cols * side - width), (0, 0)))
    x = x.reshape(batch, rows, side, cols, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows, cols, side * side * channels)


class _Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) with a hidden layer of four times the width."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def dense(features, name):
            return nn.Dense(features, kernel_init=_SMALL, name=name)

        batch, tokens, width = x.shape
        y = nn.LayerNorm(epsilon=1e-6, name="norm0")(x)
        y = dense(3 * width, "query_key_value")(y).reshape(batch, tokens, 3, self.heads, -1)
        query, key, value = (y[:, :, i] for i in range(3))
        scores = jnp.einsum("bqhc,bkhc->bhqk", query, key) * query.shape[-1] ** -0.5
        seen = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores), value)
        x = x + dense(width, "attention")(seen.reshape(x.shape))
        y = nn.LayerNorm(epsilon=1e-6, name="norm1")(x)
        y = nn.gelu(dense(4 * width, "mlp0")(y), approximate=False)
        return x + dense(width, "mlp1")(y)


class ViT(nn.Module):
    """Blocks of attention over a class token and the tokens of all patches."""

    blocks: int
    width: int
    heads: int
    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        x = nn.Dense(self.width, kernel_init=_SMALL, name="patches")(patches(x, _PATCH))
        grid = x.shape[:3]
        x = x.reshape(grid[0], -1, self.width)
        token = self.param("token", _SMALL, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (grid[0], 1, self.width)), x], axis=1)
        x = x + self.param("positions", _SMALL, (1, *x.shape[1:]))
        count = min(_TAPS, self.blocks)
        ends = {(i + 1) * self.blocks // count for i in range(count)}
        taps = []
        for block in range(self.blocks):
            x = _Block(self.heads, name=f"block{block:02d}")(x)
            if block + 1 in ends:
                taps.append(x[:, 1:].reshape(*grid, self.width))
        features = nn.LayerNorm(epsilon=1e-6, name="last_norm")(x)[:, 0]
        head = nn.Dense(self.num_classes, kernel_init=_SMALL, name="head")
        return head(features), features, tuple(taps)


def vit_tiny(spec: DataSpec, *, width: int = 192, blocks: int = 12) -> Network:
    """ViT-tiny on patches of 4x4 pixels.

    It has no normalisation over a batch, and learns slowly by plain SGD: use AdamW.

    Args:
      spec: the data it is for, of any size.
      width: of the tokens, up to 64 or a multiple of it; each 64 are a head.
      blocks: how many.

    Returns:
      A `Network` with features [B, width], the class token, and four taps
      [B, ceil(H / 4), ceil(W / 4), width].

    Raises:
      ConfigError: a width or a number of blocks that cannot be.

    Example:
      >>> from dd_jax.types import DataSpec
      >>> network = vit_tiny(DataSpec("toy", (32, 32, 3), 10, tuple("abcdefghij")))
      >>> shapes = jax.eval_shape(network.init, jax.random.key(0))["params"]
      >>> sum(x.size for x in jax.tree.leaves(shapes))
      5362762
    """
    check_width(width)
    require_whole("blocks", blocks, example=12)
    if width > _HEAD and width % _HEAD:
        raise ConfigError(f"width is {width}, expected at most {_HEAD} or a multiple of it",
                          fix=f"pass width={-(-width // _HEAD) * _HEAD}")
    module = ViT(blocks, width, max(1, width // _HEAD), spec.num_classes)
    return from_linen(module, spec.shape, name="vit_tiny")
