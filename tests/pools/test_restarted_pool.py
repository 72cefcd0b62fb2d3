"""The pool of label distillation: one network until its error on real images stands still."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets, pools
from dd_jax.types import Batch, SyntheticSet
from tests.laws import members

NETWORK = nets.mlp(members.SPEC, width=8, depth=2)


def real():
    data = members.toy_data()
    return Batch(jnp.asarray(data.images[:16], jnp.float32) / 255, data.labels[:16])


def ages(pool, steps, batches):
    """Of the network after each step, and whether it is the first one still."""
    batch = real()
    synthetic = SyntheticSet(batch.images[:4], jnp.eye(members.CLASSES)[batch.labels[:4]])
    state = first = jax.jit(pool.init)(jax.random.key(0), synthetic)
    advance, found = jax.jit(pool.advance), []
    for i in range(steps):
        state = advance(state, synthetic, jax.random.key(i + 1), batches(i))
        found.append(int(state.age))
    same = all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first.variables),
                                                    jax.tree.leaves(state.variables)))
    return found, same


@pytest.mark.parametrize("window", [1, 3])
def test_a_network_that_stands_still_leaves_after_another_window(window):
    """The first full window is a new lowest mean; as many steps without one are its last."""
    pool = pools.restarting_pool(NETWORK, optimizer=optax.sgd(0.0), window=window)
    one = [*range(1, 2 * window), 0]
    found, same = ages(pool, 4 * window, lambda i: real())
    assert found == one + one and not same


def test_a_network_that_learns_stays():
    pool = pools.restarting_pool(NETWORK, optimizer=optax.adam(1e-3), window=3)
    assert ages(pool, 12, lambda i: real())[0] == [*range(1, 13)]


def test_a_set_in_float64_leaves_the_network_in_its_own_dtype():
    with jax.enable_x64(True):
        batch = real()._replace(images=jnp.asarray(np.ones((16, *members.SHAPE)), jnp.float64))
        synthetic = SyntheticSet(batch.images[:4], jnp.asarray(np.eye(2)[[0, 0, 1, 1]]))
        assert synthetic.labels.dtype == jnp.float64
        pool = pools.restarting_pool(NETWORK, window=2)
        first = pool.init(jax.random.key(0), synthetic)
        after = jax.jit(pool.advance)(first, synthetic, jax.random.key(1), batch)
    assert int(after.age) == 1
    for a, b in zip(*map(jax.tree.leaves, (first, after)), strict=True):
        assert a.dtype == b.dtype


def test_an_error_that_is_no_number_ends_it_at_once():
    pool = pools.restarting_pool(NETWORK, optimizer=optax.sgd(0.0), window=5)
    bad = real()._replace(images=jnp.full((16, *members.SHAPE), jnp.nan))
    assert ages(pool, 4, lambda i: bad if i == 2 else real())[0] == [1, 2, 0, 1]
