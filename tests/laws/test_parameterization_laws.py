"""The laws of every parameterization."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.synthetic import stored_bytes
from tests.laws import members


@pytest.fixture(params=sorted(members.PARAMETERIZATIONS))
def name(request):
    return request.param


@pytest.fixture
def parameterization(name):
    return members.PARAMETERIZATIONS[name]()


def _start():
    return members.start("real", labels="one_hot")


def test_decoding_an_initialisation_gives_the_start(name, parameterization):
    if name in members.NOT_ONTO:
        pytest.skip(members.NOT_ONTO[name])
    params = parameterization.init(jax.random.key(0), _start())
    decoded = parameterization.decode(params, jax.random.key(1))
    np.testing.assert_allclose(decoded.images, _start().images, atol=2e-6)
    np.testing.assert_allclose(decoded.labels, _start().labels, atol=2e-3)


def test_stored_bytes_are_those_of_the_arrays(parameterization):
    params = parameterization.init(jax.random.key(0), _start())
    stored = sum(np.asarray(leaf).tobytes().__len__() for leaf in jax.tree.leaves(params))
    assert stored_bytes(params) == stored


def test_groups_follow_the_params_and_constants_get_no_gradient(parameterization):
    params = parameterization.init(jax.random.key(0), _start())
    groups = parameterization.groups(params)
    assert jax.tree.structure(groups) == jax.tree.structure(params)

    def total(params):
        decoded = parameterization.decode(params, jax.random.key(1))
        return jnp.sum(decoded.images**2) + jnp.sum(decoded.labels[:, 0] ** 2)

    gradient = jax.grad(total)(params)
    for name, group in groups.items():
        moving = bool(jnp.any(gradient[name] != 0))
        assert moving == (group != "constant"), name


def test_a_learned_rate_stays_positive(parameterization):
    start = _start()._replace(learning_rate=jnp.float32(0.01))
    params = parameterization.init(jax.random.key(0), start)
    np.testing.assert_allclose(
        parameterization.decode(params, jax.random.key(1)).learning_rate, 0.01, rtol=1e-5
    )
    pushed = {**params, "log_learning_rate": params["log_learning_rate"] - 50.0}
    assert parameterization.decode(pushed, jax.random.key(1)).learning_rate > 0
