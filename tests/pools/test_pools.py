"""The ageing pool: staggered ages, training, renewal, and the network that is drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets, pools
from dd_jax.errors import ConfigError
from dd_jax.labels.losses import squared_error
from tests.laws import members


def made(size=4, max_age=8, norm="batch"):
    network = nets.convnet(members.SPEC, depth=1, width=4, norm=norm)
    pool = pools.ageing_pool(network, size=size, max_age=max_age)
    return network, pool, pool.init(jax.random.key(0), members.start())


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_ages_start_staggered_with_different_networks():
    _, _, state = made()
    np.testing.assert_array_equal(state.ages, [0, 2, 4, 6])
    kernel = np.asarray(state.variables["params"]["conv0"]["kernel"])
    assert len({kernel[i].tobytes() for i in range(4)}) == 4


def test_only_the_current_network_is_trained_and_it_learns():
    network, pool, state = made()
    synthetic = members.start()
    after = pool.advance(state, synthetic, jax.random.key(1))
    current = int(state.current)
    for old, new in zip(leaves(state.variables), leaves(after.variables)):
        changed = [not np.array_equal(old[i], new[i]) for i in range(4)]
        assert changed == [i == current for i in range(4)]
    assert int(after.ages[current]) == int(state.ages[current]) + 1

    def loss(variables):
        logits = network.apply(variables, synthetic.images, True).logits
        return float(squared_error(logits, synthetic.labels).mean())

    before = loss(pool.draw(state, jax.random.key(0)))
    again = jax.jit(pool.advance)
    for i in range(30):
        fixed = after._replace(current=jnp.int32(current), ages=jnp.zeros_like(after.ages))
        after = again(fixed, synthetic, jax.random.key(i))
    assert loss(pool.draw(after._replace(current=jnp.int32(current)), None)) < before


def test_an_old_network_is_replaced_not_trained():
    network, pool, state = made()
    old = state._replace(ages=jnp.full((4,), 9, jnp.int32))
    key = jax.random.key(3)
    after = pool.advance(old, members.start(), key)
    current = int(state.current)
    assert int(after.ages[current]) == 0
    fresh = network.init(jax.random.split(key)[0])
    renewed = jax.tree.map(lambda x: x[current], after.variables)
    for a, b in zip(leaves(fresh), leaves(renewed)):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    moments = [x[current] for x in leaves(after.optimizer)]
    assert all(not np.any(m) for m in moments)


def test_every_network_gets_its_turn():
    _, pool, state = made()
    step = jax.jit(pool.advance)
    seen = set()
    for i in range(60):
        state = step(state, members.start(), jax.random.key(i))
        seen.add(int(state.current))
    assert seen == {0, 1, 2, 3}


def test_a_large_set_is_subsampled():
    network = nets.mlp(members.SPEC, width=4)
    pool = pools.ageing_pool(network, size=1, max_batch=2)
    state = pool.init(jax.random.key(0), members.start())
    outcomes = {
        np.asarray(jax.tree.leaves(pool.advance(state, members.start(), jax.random.key(i))
                                   .variables)[0]).tobytes()
        for i in range(6)
    }
    assert len(outcomes) > 1  # other subsets, other steps


@pytest.mark.parametrize("options", [{"size": 0}, {"max_age": 0}, {"max_batch": 0}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        pools.ageing_pool(nets.mlp(members.SPEC), **options)
