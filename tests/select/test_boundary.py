"""Distances to a boundary: closed form where logits are linear, a slow loop where they are not."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.data import normalise, standardise
from dd_jax.errors import ConfigError
from dd_jax.select import boundary, looks
from dd_jax.select.boundary import Boundary, boundaries, deepfool, nearness, to_boundary
from tests.laws import members
from tests.select import reference_scores as slow

RNG = np.random.default_rng(0)
SHAPE = (3, 2, 1)
WEIGHTS, BIAS = RNG.normal(size=(6, 4)), RNG.normal(size=4)
IMAGES = np.float32(RNG.normal(size=(40, *SHAPE)))


def linear(images):
    return images.reshape(len(images), -1) @ jnp.float32(WEIGHTS) + jnp.float32(BIAS)


@pytest.mark.parametrize("overshoot", [0.02, 0.3])
def test_of_a_linear_classifier_it_is_the_closed_form(overshoot):
    found = jax.jit(lambda x: to_boundary(linear, x, overshoot=overshoot))(IMAGES)
    logits = IMAGES.reshape(40, -1) @ WEIGHTS + BIAS
    for i in range(40):
        first = logits[i].argmax()
        wanted = min((logits[i, first] - logits[i, c])
                     / np.linalg.norm(WEIGHTS[:, c] - WEIGHTS[:, first])
                     for c in range(4) if c != first)
        np.testing.assert_allclose(found.distance[i], wanted, rtol=1e-4)
    assert found.crossed.all()


HIDDEN = np.float32(RNG.normal(size=(6, 8)))
OUTPUT = np.float32(RNG.normal(size=(8, 4)))


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_of_a_curved_classifier_it_is_the_slow_loop(steps):
    """Images need different numbers of steps, and those that are done move no more."""
    def curved(images):
        return jnp.matmul(jnp.sin(jnp.matmul(images.reshape(len(images), -1), HIDDEN,
                                             precision="highest")), OUTPUT, precision="highest")

    hidden, output = np.float64(HIDDEN), np.float64(OUTPUT)

    def logits(x):
        return np.sin(x @ hidden) @ output

    def slopes(x):
        return (hidden * np.cos(x @ hidden) @ output).T

    found = to_boundary(curved, jnp.asarray(IMAGES), steps=steps)
    flat = np.float64(IMAGES.reshape(40, -1))
    wanted = [slow.deepfool(x, logits, slopes, steps=steps, overshoot=0.02) for x in flat]
    assert np.asarray(found.crossed).tolist() == [crossed for _, crossed in wanted]
    np.testing.assert_allclose(found.distance, [far for far, _ in wanted], rtol=2e-3)
    if steps == 1:
        assert 0 < np.sum(~np.asarray(found.crossed)) < 40


def test_what_is_flat_never_crosses_and_what_lies_on_the_boundary_has():
    flat = to_boundary(lambda x: jnp.zeros((len(x), 3)) + 0 * linear(x)[:, :3], IMAGES[:2])
    assert not flat.crossed.any() and flat.distance.tolist() == [0, 0]
    tied = to_boundary(lambda x: x.reshape(1, -1)[:, :2], jnp.ones((1, *SHAPE)))
    assert tied.crossed.all() and tied.distance.tolist() == [0]
    found = nearness(Boundary(np.float32([0, 3, 5, 1]), np.array([False, True, True, False])))
    assert np.argsort(-found).tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize("on_host", [False, True])
def test_all_images_block_by_block(on_host, monkeypatch):
    monkeypatch.setattr(looks, "block_rows", lambda data: 24)
    monkeypatch.setattr(boundary, "MOST_IMAGES", 5)
    toy, network = members.toy_data(), nets.convnet(members.SPEC, depth=1, width=2)
    variables, normaliser = network.init(jax.random.key(0)), standardise(toy)
    data = dataclasses.replace(toy, images=np.asarray(toy.images)) if on_host else toy
    found = boundaries(network, variables, data, normaliser)
    whole = to_boundary(lambda x: network.apply(variables, x).logits,
                        normalise(normaliser, toy.images))
    assert isinstance(found.distance, np.ndarray) and found.crossed.dtype == bool
    np.testing.assert_array_equal(found.crossed, whole.crossed)
    np.testing.assert_allclose(found.distance, whole.distance, rtol=1e-2)


def test_the_nearest_come_first_and_an_unknown_order_is_refused():
    far = Boundary(np.float32([2, 1, 3]), np.ones(3, bool))
    for order, wanted in (("top", [1, 0, 2]), ("bottom", [2, 0, 1])):
        selector = deepfool(order)
        score = selector.score(None, {"boundary": far}, None)
        assert selector.choose(jnp.asarray(score), jnp.ones(3, bool), 3, None).rows.tolist() == (
            wanted)
    with pytest.raises(ConfigError, match="'nearest'"):
        deepfool("nearest")
