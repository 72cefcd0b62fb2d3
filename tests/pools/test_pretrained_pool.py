"""The pool of networks that are trained before the first step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.labels.losses import mean_squared_error
from dd_jax.pools.pretrained import pretrained_pool
from dd_jax.transforms import decayed_momentum
from tests.laws import members

SIZE, MAX_AGE = 3, 6


@pytest.fixture(scope="module")
def made():
    """(network, {reset_age: pool}, one start state), compiled once."""
    network = nets.convnet(members.SPEC, depth=1, width=4, norm="batch")
    both = {flag: pretrained_pool(network, size=SIZE, max_age=MAX_AGE, reset_age=flag)
            for flag in (True, False)}
    return network, both, jax.jit(both[True].init)(jax.random.key(0), members.start())


def network_of(state, i):
    return jax.tree.map(lambda x: x[i], state.variables)


def fresh_networks(network):
    """What the pool's networks were before they were trained, from the documented keys."""
    keys = jax.random.split(jax.random.split(jax.random.key(0), 3)[0], SIZE + 1)[1:]
    init = jax.jit(network.init)
    return [init(k) for k in keys]


def training_error(network, variables):
    synthetic = members.start()
    outputs = network.apply(variables, synthetic.images, True)
    return mean_squared_error(outputs.logits, synthetic.labels).mean(), outputs


def test_networks_start_trained_for_their_age(made):
    network, _, state = made
    ages = np.asarray(state.ages)
    assert len(ages) == SIZE and np.all((ages >= 1) & (ages < MAX_AGE)) and len(set(ages)) > 1
    assert 0 <= int(state.current) < SIZE
    optimizer = decayed_momentum()

    @jax.jit
    def train(variables, opt_state):
        def loss(params):
            return training_error(network, {**variables, "params": params})

        grads, outputs = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(grads, opt_state, variables["params"])
        params = jax.tree.map(jnp.add, variables["params"], updates)
        return {"params": params, "batch_stats": outputs.batch_stats}, opt_state

    for i, variables in enumerate(fresh_networks(network)):
        opt_state = jax.tree.map(jnp.zeros_like, optimizer.init(variables["params"]))
        for _ in range(ages[i]):
            variables, opt_state = train(variables, opt_state)
        for mine, theirs in zip(jax.tree.leaves(variables),
                                jax.tree.leaves(network_of(state, i))):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)


def test_optimizer_is_pytorch_sgd():
    """Coupled decay inside the momentum, twice by hand."""
    optimizer = decayed_momentum(0.1, momentum=0.9, weight_decay=0.5)
    state = optimizer.init(jnp.float32(2.0))
    first, state = optimizer.update(jnp.float32(1.0), state, jnp.float32(2.0))
    np.testing.assert_allclose(first, -0.1 * 2.0, rtol=1e-6)
    second, _ = optimizer.update(jnp.float32(1.0), state, jnp.float32(1.8))
    np.testing.assert_allclose(second, -0.1 * (0.9 * 2.0 + 1.9), rtol=1e-6)


@pytest.fixture(scope="module")
def step(made):
    _, both, _ = made
    return {flag: jax.jit(pool.advance) for flag, pool in both.items()}


def test_a_use_is_one_training_step(made, step):
    network, _, state = made
    current = int(state.current)
    state = state._replace(ages=jnp.ones((SIZE,), jnp.int32))
    after = step[True](state, members.start(), jax.random.key(1))
    assert int(after.ages[current]) == 2
    error = jax.jit(lambda variables: training_error(network, variables)[0])
    assert error(network_of(after, current)) < error(network_of(state, current))


def test_after_the_last_step_a_network_starts_again(made, step):
    _, _, state = made
    current = int(state.current)
    young = state._replace(ages=jnp.full((SIZE,), MAX_AGE - 1, jnp.int32))
    old = step[True](young, members.start(), jax.random.key(1))
    assert int(old.ages[current]) == MAX_AGE  # the last step is still taken
    new = step[True](old._replace(current=jnp.int32(current)), members.start(), jax.random.key(2))
    assert int(new.ages[current]) == 0
    bias = network_of(new, current)["batch_stats"]["norm0"]["mean"]
    np.testing.assert_array_equal(bias, 0)  # untrained


def test_the_released_code_never_lets_a_network_age_again(made, step):
    """The option that repeats the error: after one renewal, another one after every use."""
    _, _, state = made
    state = state._replace(ages=jnp.full((SIZE,), MAX_AGE, jnp.int32))
    for i in range(4):
        current = int(state.current)
        state = step[False](state, members.start(), jax.random.key(i))
        assert int(state.ages[current]) == MAX_AGE
        np.testing.assert_array_equal(
            network_of(state, current)["batch_stats"]["norm0"]["mean"], 0)


def test_bad_settings_are_refused():
    network = nets.mlp(members.SPEC, width=4)
    with pytest.raises(ConfigError, match="max_age is 1"):
        pretrained_pool(network, max_age=1)
    with pytest.raises(ConfigError, match="size is 0"):
        pretrained_pool(network, size=0)
