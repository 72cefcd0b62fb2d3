"""The learned linear map of the pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.synthetic import pixels, stored_bytes
from dd_jax.synthetic.preconditioned import preconditioned
from tests.laws import members


def made(labels="learned"):
    head = preconditioned(pixels(labels=labels))
    start = members.start("real")._replace(log_temperature=jnp.float32(0.5))
    return head, start, head.init(jax.random.key(0), start)


def test_the_start_is_kept_bit_for_bit():
    head, start, params = made()
    decoded = head.decode(params, jax.random.key(1))
    for a, b in zip(jax.tree.leaves(decoded), jax.tree.leaves(start)):
        np.testing.assert_array_equal(a, b)


def test_images_are_multiplied_by_the_matrix_and_nothing_else_is():
    head, start, params = made()
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    decoded = head.decode({**params, "preconditioner": jnp.asarray(matrix)}, jax.random.key(1))
    flat = np.asarray(start.images, np.float64).reshape(len(start.images), -1)
    expected = (flat @ matrix).reshape(start.images.shape)
    np.testing.assert_allclose(decoded.images, expected, atol=1e-5)
    np.testing.assert_array_equal(decoded.labels, start.labels)
    assert decoded.log_temperature == 0.5


def test_gradient_of_the_matrix():
    """d/dT of sum(G * X T) is X^T G."""
    head, start, params = made()
    weights = np.random.default_rng(1).normal(size=start.images.shape).astype(np.float32)

    def total(params):
        return jnp.sum(weights * head.decode(params, jax.random.key(1)).images)

    gradient = jax.grad(total)(params)
    flat = np.asarray(start.images).reshape(4, -1)
    np.testing.assert_allclose(gradient["preconditioner"], flat.T @ weights.reshape(4, -1),
                               atol=1e-5)
    np.testing.assert_allclose(gradient["images"], weights, atol=1e-6)


def test_cost_and_groups_count_the_matrix():
    head, _, params = made("fixed")
    assert stored_bytes(params) == sum(x.size * 4 for x in jax.tree.leaves(params))
    assert head.groups(params) == {"images": "images", "labels": "constant",
                                   "log_temperature": "temperature",
                                   "preconditioner": "preconditioner"}


def test_twice_is_refused():
    with pytest.raises(ConfigError, match="preconditioner"):
        preconditioned(preconditioned(pixels())).init(jax.random.key(0), members.start())
