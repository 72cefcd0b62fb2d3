"""Block sizes of kernel evaluations from memory estimates, before anything is allocated."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.types import Kernel

BUDGET_BYTES = 2**30


class BlockPlan(NamedTuple):
    """How an evaluation of n1 x n2 pairs is cut; made before anything is allocated.

    Attributes:
      rows, columns: images of x1 and of x2 per block.
      n1, n2: all of them.
      pair_bytes: estimated working memory of one pair, in the dtype of the images.
      name: the kernel's.
    """

    rows: int
    columns: int
    n1: int
    n2: int
    pair_bytes: int
    name: str

    @property
    def blocks(self) -> int:
        """How many blocks a full evaluation goes through."""
        return -(-self.n1 // self.rows) * -(-self.n2 // self.columns)

    @property
    def block_bytes(self) -> int:
        """Estimated working memory of one block."""
        return self.rows * self.columns * self.pair_bytes

    def describe(self) -> str:
        """One line for a log.

        Example:
          >>> BlockPlan(10, 20, 100, 200, 2**20, "convnet3").describe()
          'convnet3: 100 x 200 pairs in 100 blocks of 10 x 20, about 200 MiB each (1 MiB a pair)'
        """
        return (f"{self.name}: {self.n1} x {self.n2} pairs in {self.blocks} "
                f"block{'s' * (self.blocks > 1)} of {self.rows} x {self.columns}, about "
                f"{_readable(self.block_bytes)} each ({_readable(self.pair_bytes)} a pair)")


def _readable(count: int) -> str:
    power = min(3, max(0, (int(count).bit_length() - 1) // 10))
    return f"{count / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def even_size(total: int, size: int) -> int:
    """The smallest block that needs no more blocks than `size` does: little is padded.

    Example:
      >>> even_size(10, 9)
      5
    """
    return -(-total // -(-total // size))


def plan_blocks(
    kernel: Kernel, n1: int, n2: int, shape: tuple[int, int, int],
    budget_bytes: int = BUDGET_BYTES, *, dtype=jnp.float32,
) -> BlockPlan:
    """Chooses the block size of an evaluation from the kernel's memory per pair.

    Blocks are as square as they can be, because every block also computes what belongs to its
    rows and its columns alone.

    Args:
      kernel: whose `pair_bytes` counts.
      n1, n2: images of either side.
      shape: (H, W, C) of one image.
      budget_bytes: working memory that a block may take, in bytes.
      dtype: of the images.

    Returns:
      A `BlockPlan`.

    Raises:
      ConfigError: not even one pair fits, or a size is not positive.

    Example:
      >>> from dd_jax.types import Kernel
      >>> costly = Kernel(None, None, lambda shape: 2**20, "costly")
      >>> plan_blocks(costly, 100, 5000, (32, 32, 3), 2**28)[:2]
      (15, 16)
    """
    if min(n1, n2) < 1:
        raise ConfigError(f"a kernel of {n1} x {n2} images, expected at least one on either side",
                          fix="pass images [n, H, W, C] with n of 1 or more")
    pair_bytes = max(1, kernel.pair_bytes(tuple(shape)) * jnp.dtype(dtype).itemsize // 4)
    pairs = int(budget_bytes) // pair_bytes
    if pairs < 1:
        raise ConfigError(
            f"one pair of {tuple(shape)} images takes about {_readable(pair_bytes)} in kernel "
            f"{kernel.name!r}, and the budget is {_readable(budget_bytes)}",
            fix=f"pass budget_bytes={pair_bytes} or more, smaller images, or a kernel without "
                "global pooling",
        )
    side = math.isqrt(pairs)
    columns = min(n2, pairs // min(n1, side))
    rows = min(n1, pairs // columns)
    return BlockPlan(even_size(n1, rows), even_size(n2, columns), n1, n2, pair_bytes, kernel.name)
