"""Forward mode through inner loops against reverse mode, and what it keeps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets, objectives, pools, train
from dd_jax.contrib import forward_gradient
from dd_jax.errors import ConfigError
from dd_jax.types import Batch
from tests.laws import members

NETWORK = nets.mlp(members.SPEC, width=8, depth=2)


def losses(steps, adjoint="checkpointed"):
    """(rates [steps]) -> the loss of real images after training at these rates."""
    learner = train.student(NETWORK, steps=steps, optimizer=optax.trace(0.9),
                            adjoint=train.adjoint_by_name(adjoint))
    objective = objectives.unrolled(learner, pool=pools.fixed_pool(NETWORK, seed=0), batch_size=8)
    synthetic = members.start(labels="one_hot")
    data, key = members.toy_data(), jax.random.key(0)
    batch = Batch(jnp.asarray(data.images[:8], jnp.float32) / 255, data.labels[:8])

    def loss(rates):
        dtype = rates.dtype
        given = synthetic._replace(images=synthetic.images.astype(dtype),
                                   labels=synthetic.labels.astype(dtype), learning_rate=rates)
        state = objective.init(key, given)
        real = batch._replace(images=batch.images.astype(dtype))
        return objective.loss(given, state, real, key)[0]

    return loss


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_forward_mode_is_reverse_mode(how):
    with jax.enable_x64(True):
        loss, rates = losses(4), jnp.array([0.1, 0.2, 0.05, 0.1])
        value, slopes = jax.jit(forward_gradient(loss, how=how))(rates)
        wanted, reverse = jax.jit(jax.value_and_grad(loss))(rates)
        np.testing.assert_allclose(value, wanted, rtol=1e-12)
        np.testing.assert_allclose(slopes, reverse, rtol=1e-10, atol=1e-14)
        assert np.abs(reverse).min() > 1e-4


def test_memory_does_not_grow_with_the_steps():
    def used(steps, differentiate):
        def of(rate):
            return differentiate(lambda r: losses(steps)(jnp.full((steps,), r)))(rate)

        compiled = jax.jit(of).lower(jnp.float32(0.1)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    forward = [used(n, forward_gradient) for n in (4, 64)]
    reverse = [used(n, jax.value_and_grad) for n in (4, 64)]
    print(forward, reverse)
    assert forward[1] < 1.2 * forward[0] + 4096 and reverse[1] > 2 * reverse[0]


def test_no_numbers():
    with pytest.raises(ConfigError, match="no numbers"):
        forward_gradient(lambda numbers: 0.0)({})
