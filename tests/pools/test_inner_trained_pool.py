"""The inner-trained pool: how long a network serves, and how it is trained meanwhile."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets, pools
from dd_jax.errors import ConfigError
from tests.laws import members
from tests.objectives import reference_gradients as reference

NETWORK = nets.mlp(members.SPEC, width=8, depth=2)
RATE, MOMENTUM = 0.2, 0.9


def run(pool, steps, seed=1000):
    """The state before each of some steps, and the network that the step is given."""
    synthetic = members.start("noise", labels="one_hot")
    advance = jax.jit(pool.advance)
    state = pool.init(jax.random.key(seed), synthetic)
    states = []
    for i in range(steps):
        states.append((state, pool.draw(state, jax.random.key(100 + i))))
        state = advance(state, synthetic, jax.random.key(i))
    return states


def flat(variables):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(variables)])


def trained_by_hand(params, epochs):
    """Full-batch gradient descent with a heavy ball, on the set of `run`."""
    synthetic = members.start("noise", labels="one_hot")
    params = reference.as_float64(params)
    velocity = jax.tree.map(np.zeros_like, params)
    for _ in range(epochs):
        slope = reference.gradient(params, synthetic.images, synthetic.labels)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, slope)
        params = jax.tree.map(lambda p, v: p - RATE * v, params, velocity)
    return params


def test_a_network_serves_its_uses_and_is_trained_between_them():
    """Uses 3, epochs 2: networks before steps 0, 1, 2 have seen 0, 2, 4 epochs; then a new one.

    The set of 4 is smaller than the batch: an epoch is one step on all of it. The velocity goes on
    from one training of a network to its next and starts anew with the next network.
    """
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    pool = pools.inner_trained_pool(NETWORK, uses=3, epochs=2, optimizer=optimizer)
    states = run(pool, 7)
    assert [(int(s.uses), int(s.renewals)) for s, _ in states] == [
        (0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)]
    for first in (0, 3):
        fresh = states[first][1]["params"]
        assert np.abs(flat(states[first][0].optimizer)).max() == 0
        for used in (1, 2):
            wanted = flat(trained_by_hand(fresh, 2 * used))
            ours = flat(states[first + used][1]["params"])
            np.testing.assert_allclose(ours, wanted, atol=2e-5)
            assert np.abs(wanted - flat(fresh)).max() > 1e-2
    fresh = [flat(states[i][1]) for i in (0, 3, 6)]
    assert all(np.abs(fresh[i] - fresh[j]).max() > 1e-2 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_one_use_is_a_fresh_network_for_every_step():
    states = run(pools.inner_trained_pool(NETWORK, uses=1, epochs=5), 4)
    assert [(int(s.uses), int(s.renewals)) for s, _ in states] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    networks = [flat(variables) for _, variables in states]
    assert len({n.tobytes() for n in networks}) == 4
    bound = 1 / np.sqrt(64)  # untrained: within the range of the initialisation
    assert all(np.abs(v["params"]["hidden0"]["kernel"]).max() <= bound for _, v in states)


def test_without_epochs_a_network_stays_as_it_is():
    states = run(pools.inner_trained_pool(NETWORK, uses=2, epochs=0), 4)
    networks = [flat(variables).tobytes() for _, variables in states]
    assert networks[0] == networks[1] != networks[2] == networks[3]


def test_by_default_the_rate_is_a_hundredth_without_momentum():
    states = run(pools.inner_trained_pool(NETWORK, uses=9, epochs=1), 2)
    synthetic = members.start("noise", labels="one_hot")
    slope = reference.gradient(reference.as_float64(states[0][1]["params"]), synthetic.images,
                               synthetic.labels)
    np.testing.assert_allclose(flat(states[1][1]["params"]),
                               flat(states[0][1]["params"]) - 0.01 * flat(slope), atol=1e-6)


def test_the_set_has_no_derivative_through_the_training():
    pool = pools.inner_trained_pool(NETWORK, uses=9, epochs=1)
    synthetic = members.start("noise", labels="one_hot")

    def after(images):
        state = pool.init(jax.random.key(0), synthetic)
        moved = pool.advance(state, synthetic._replace(images=images), jax.random.key(1))
        return jnp.sum(moved.variables["params"]["hidden0"]["kernel"])

    assert not np.any(jax.jit(jax.grad(after))(synthetic.images))


@pytest.mark.parametrize("options", [{"uses": 0}, {"uses": 1.5}, {"epochs": -1},
                                     {"batch_size": 0}, {"uses": True}],
                         ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))
def test_bad_settings_are_refused_by_name(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        pools.inner_trained_pool(NETWORK, **{"uses": 2, "epochs": 1, **options})
