"""An ageing pool that trains its networks for several steps, on a transformed set."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets, pools
from dd_jax.errors import ConfigError
from dd_jax.labels.losses import squared_error
from dd_jax.synthetic import with_mirrors
from tests.laws import members


def test_networks_train_for_a_random_number_of_steps_on_the_transformed_set():
    network = nets.mlp(members.SPEC, width=4)
    pool = pools.ageing_pool(network, size=1, max_age=1000, optimizer=optax.sgd(0.1),
                             train_steps=(2, 5), transform=with_mirrors)
    synthetic = members.start()
    state = pool.init(jax.random.key(0), synthetic)
    advance = jax.jit(pool.advance)
    both = with_mirrors(synthetic)

    def loss(params):
        return jnp.mean(squared_error(network.apply({"params": params}, both.images).logits,
                                      both.labels))

    trail = [pool.draw(state, None)["params"]]
    for _ in range(5):
        trail.append(jax.tree.map(lambda p, g: p - 0.1 * g, trail[-1], jax.grad(loss)(trail[-1])))
    seen = set()
    for seed in range(20):
        after = advance(state, synthetic, jax.random.key(seed))
        age = int(after.ages[0])
        seen.add(age)
        for a, b in zip(jax.tree.leaves(pool.draw(after, None)["params"]),
                        jax.tree.leaves(trail[age])):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert seen == {2, 3, 4, 5}


@pytest.mark.parametrize("steps", [(0, 1), (3, 2)])
def test_a_range_that_is_none_is_refused(steps):
    with pytest.raises(ConfigError, match="train_steps"):
        pools.ageing_pool(nets.mlp(members.SPEC), train_steps=steps)
