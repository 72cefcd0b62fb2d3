"""Bases shown through learned maps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from dd_jax.contrib import hallucinated
from dd_jax.errors import ConfigError
from dd_jax.synthetic import pixels, stored_bytes
from dd_jax.types import SyntheticSet

SHAPE = (5, 6, 2)


def made(count=3, labels="fixed"):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(4, *SHAPE)), jnp.float32)
    start = SyntheticSet(images, jnp.repeat(jnp.eye(2), 2, axis=0), log_temperature=jnp.ones(()))
    head = hallucinated(pixels(labels=labels), hallucinators=count)
    return head, start, head.init(jax.random.key(0), start)


def test_every_base_through_every_hallucinator_against_scipy():
    head, start, params = made()
    rng = np.random.default_rng(1)
    params = {**params, **{n: jnp.asarray(rng.normal(size=params[n].shape), jnp.float32)
                           for n in ("scale", "shift")}}
    found = head.decode(params, jax.random.key(1))
    assert found.images.shape == (12, *SHAPE)
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    for m in range(4):
        for j in range(3):
            hidden = np.array([
                sum(scipy.signal.correlate2d(p["images"][m, ..., c],
                                             p["valid_kernel"][j, ..., c, d], mode="valid")
                    for c in range(2))
                for d in range(2)]).transpose(1, 2, 0) + p["valid_bias"][j]
            hidden = p["scale"][j] * hidden + p["shift"][j]
            # A transposed convolution of stride 1 is a full convolution with the kernel.
            image = np.array([
                sum(scipy.signal.convolve2d(hidden[..., c], p["full_kernel"][j, ..., c, d],
                                            mode="full") for c in range(2))
                for d in range(2)]).transpose(1, 2, 0) + p["full_bias"][j]
            np.testing.assert_allclose(found.images[3 * m + j], image, atol=5e-6)
    np.testing.assert_array_equal(found.labels, np.repeat(start.labels, 3, axis=0))
    assert found.log_temperature == 1


def test_the_start_of_the_hallucinators():
    _, start, params = made(count=50)
    np.testing.assert_array_equal(params["images"], start.images)
    assert (params["scale"] == 1).all() and (params["shift"] == 0).all()
    bound = 1 / np.sqrt(9 * 2)
    for name in ("valid_kernel", "full_kernel"):
        assert np.abs(params[name]).max() <= bound
        np.testing.assert_allclose(np.std(params[name]), bound / np.sqrt(3), rtol=0.05)
    assert (params["valid_kernel"] != params["full_kernel"]).all()


def test_cost_groups_and_gradient_count_everything():
    head, _, params = made()
    assert stored_bytes(params) == sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(params))
    per_map = 18 * 4 + 2 * 2 + 2 * 3 * 4 * 2
    assert stored_bytes(params) == 4 * (3 * per_map + 4 * 5 * 6 * 2 + 4 * 2 + 1)
    groups = head.groups(params)
    assert groups["images"] == "images" and groups["labels"] == "constant"
    learned = [name for name, group in groups.items() if group == "hallucinators"]
    assert len(learned) == 6 and groups.keys() == params.keys()
    gradient = jax.grad(
        lambda p: jnp.sum(head.decode(p, jax.random.key(1)).images ** 2))(params)
    for name in (*learned, "images"):
        assert jnp.any(gradient[name] != 0), name


def test_refusals():
    with pytest.raises(ConfigError, match="hallucinators is 0"):
        hallucinated(pixels(), hallucinators=0)
    _, start, _ = made()
    with pytest.raises(ConfigError, match="once"):
        hallucinated(hallucinated(pixels())).init(jax.random.key(0), start)
    with pytest.raises(ConfigError, match="2x6"):
        hallucinated(pixels()).init(jax.random.key(0), start._replace(images=start.images[:, :2]))
