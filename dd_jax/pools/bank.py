"""Networks trained before the first step, each used somewhere on the line from where it started.

  theta = l theta_0 + (1 - l) theta_1,   (theta_0, theta_1) one pair of the bank,   l ~ U(0, 1)

Source: Wang et al., Dataset Distillation with Neural Characteristic Function: A Minmax
Perspective, CVPR 2025.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.data import Normaliser
from dd_jax.errors import ConfigError, require_whole
from dd_jax.train.teachers import train_supervised
from dd_jax.types import Augmentation, Network, Pool, PyTree, RealData, SyntheticSet


class BankState(NamedTuple):
    """State of a bank pool; the bank is part of it, since arrays that a compiled function closes
    over are written out into its program.

    Attributes:
      initial: [n, ...] variables, or () where only trained ends are used.
      trained: [n, ...] variables.
      current: [] int32, the pair of this step.
      share: [] float in 0..1, of the initial end.
    """

    initial: PyTree
    trained: PyTree
    current: jax.Array
    share: jax.Array


def bank_pool(bank: tuple[PyTree, PyTree], *, interpolated: bool = True) -> Pool:
    """A pool over a bank of networks, see the module; a pair and its l last until `advance`.

    Only "params" are mixed; running statistics are those of the trained end.

    Args:
      bank: (initial, trained), variables with a leading axis n, such as `train_bank` returns.
      interpolated: False always uses the trained end.

    Returns:
      A `Pool` with `BankState`.

    Raises:
      ConfigError: the two ends are trees of different structure, shapes or numbers of networks.

    Example:
      >>> ends = [{"params": {"w": jnp.full((5, 2), value)}} for value in (0.0, 1.0)]
      >>> pool = bank_pool((ends[0], ends[1]), interpolated=False)
      >>> pool.draw(pool.init(jax.random.key(0), None), jax.random.key(1))["params"]["w"].tolist()
      [1.0, 1.0]
    """
    count = _count(bank)
    initial, trained = bank

    def choice(key: jax.Array, dtype) -> tuple[jax.Array, jax.Array]:
        pair_key, share_key = jax.random.split(key)
        return (jax.random.randint(pair_key, (), 0, count, jnp.int32),
                jax.random.uniform(share_key, (), dtype))

    def init(key: jax.Array, synthetic: SyntheticSet) -> BankState:
        return BankState(initial if interpolated else (), trained, *choice(key, jnp.float32))

    def draw(state: BankState, key: jax.Array) -> PyTree:
        end = jax.tree.map(lambda x: x[state.current], state.trained)
        if not interpolated:
            return end
        start = jax.tree.map(lambda x: x[state.current], state.initial["params"])
        share = state.share
        mixed = jax.tree.map(lambda a, b: share * a + (1 - share) * b, start, end["params"])
        return {**end, "params": mixed}

    def advance(state: BankState, synthetic: SyntheticSet, key: jax.Array) -> BankState:
        return BankState(state.initial, state.trained, *choice(key, state.share.dtype))

    return Pool(init=init, draw=draw, advance=advance)


def train_bank(
    network: Network,
    data: RealData,
    count: int,
    *,
    normaliser: Normaliser,
    key: jax.Array,
    steps: int,
    batch_size: int = 128,
    optimizer: optax.GradientTransformation,
    augmentation: Augmentation | None = None,
    mix: float = 0.0,
) -> tuple[PyTree, PyTree]:
    """Trains a bank of networks on real images, one after another in one program.

    Args:
      network: the architecture.
      data: the real set, on the device.
      count: n, how many networks.
      normaliser, key, steps, batch_size, optimizer, augmentation, mix: as for `train_supervised`.

    Returns:
      (initial, trained), variables with a leading axis n.

    Raises:
      ConfigError: a count below 1, or what `train_supervised` refuses.

    Example:
      >>> import numpy as np
      >>> from dd_jax import data, nets
      >>> real = data.from_arrays(np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)),
      ...                         np.arange(8) % 2)
      >>> bank = train_bank(nets.mlp(real.spec, width=4), real, 3, key=jax.random.key(0), steps=1,
      ...                   normaliser=data.standardise(real), optimizer=optax.sgd(0.01))
      >>> bank[1]["params"]["head"]["kernel"].shape
      (3, 4, 2)
    """
    require_whole("count", count, example=20)

    def one(key: jax.Array) -> tuple[PyTree, PyTree]:
        return train_supervised(
            network, data, normaliser=normaliser, key=key, steps=steps, batch_size=batch_size,
            optimizer=optimizer, augmentation=augmentation, mix=mix,
        )

    return jax.lax.map(one, jax.random.split(key, count))


def _count(bank: tuple[PyTree, PyTree]) -> int:
    """How many networks the bank holds; refuses ends that do not fit each other."""
    fix = "pass (initial, trained) as train_bank returns them"
    initial, trained = bank
    if not jax.tree.leaves(trained) or jax.tree.structure(initial) != jax.tree.structure(trained):
        raise ConfigError(f"the bank's ends are different trees, {jax.tree.structure(initial)} and "
                          f"{jax.tree.structure(trained)}", fix=fix)
    counts = set()
    for a, b in zip(jax.tree.leaves(initial), jax.tree.leaves(trained)):
        if jnp.shape(a) != jnp.shape(b) or not jnp.ndim(a):
            raise ConfigError(f"the bank's ends have leaves of shapes {jnp.shape(a)} and "
                              f"{jnp.shape(b)}, expected equal ones [n, ...]", fix=fix)
        counts.add(jnp.shape(a)[0])
    if len(counts) > 1 or counts == {0}:
        raise ConfigError(f"the bank's leaves hold {sorted(counts)} networks, expected one number "
                          "of at least 1", fix=fix)
    return counts.pop()
