"""Gradients of the last layer by their factors, against automatic differentiation."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from dd_jax import nets
from dd_jax.data import normalise, standardise
from dd_jax.errors import ConfigError
from dd_jax.select import gradients, looks
from dd_jax.select.dynamics import Recording, gradient_norms, measured
from dd_jax.select.gradients import LastLayer
from dd_jax.types import Outputs
from tests.laws import members
from tests.select import reference_gradients as slow


def seen_of(count, seed=0, classes=4, width=5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    error = rng.dirichlet(np.full(classes, 0.5), count) - np.eye(classes)[labels]
    return LastLayer(*(jnp.asarray(x, jnp.float32) for x in (
        error, rng.normal(size=(count, width)))))


def test_factors_are_the_derivative_in_weights_and_biases():
    rng = np.random.default_rng(0)
    inputs, weights, biases = (jnp.asarray(rng.normal(size=shape), jnp.float32)
                               for shape in ((6, 5), (5, 3), (3,)))
    labels = jnp.array([0, 1, 2, 0, 1, 2])

    def loss(layer, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(x @ layer[0] + layer[1], y)

    wanted = jax.vmap(jax.grad(loss), (None, 0, 0))((weights, biases), inputs, labels)
    found = gradients.factors(Outputs(inputs @ weights + biases, inputs), labels)
    whole = np.concatenate([np.swapaxes(wanted[0], 1, 2), wanted[1][..., None]], axis=2)
    np.testing.assert_allclose(slow.written_out(*found), whole.reshape(6, -1), atol=1e-6)


def test_a_label_that_is_all_but_sure_keeps_its_gradient():
    found = gradients.factors(Outputs(jnp.array([[30.0, 0.0]]), jnp.ones((1, 1))), jnp.array([0]))
    np.testing.assert_allclose(found.error, [[-np.exp(-30), np.exp(-30)]], rtol=1e-5)


def test_products_distances_and_sums_are_those_of_written_out_gradients():
    some, others = seen_of(7), seen_of(9, seed=1)
    a, b = slow.written_out(*some), slow.written_out(*others)
    np.testing.assert_allclose(gradients.inner(some, others), a @ b.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients.squares(some), np.sum(a**2, axis=1), rtol=1e-5)
    np.testing.assert_allclose(gradients.distances(some, others),
                               np.linalg.norm(a[:, None] - b, axis=2), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(slow.written_out(*gradients.unit(some)), axis=1), 1,
                               rtol=1e-5)
    weights = jnp.arange(9.0)
    total = gradients.weighted_sum(others, weights)
    np.testing.assert_allclose(total.ravel(), np.arange(9) @ b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients.along(some, total), a @ (np.arange(9) @ b), rtol=1e-4,
                               atol=1e-4)


@pytest.mark.parametrize("on_host", [False, True])
def test_those_of_all_images_are_looked_at_block_by_block(on_host, monkeypatch):
    monkeypatch.setattr(looks, "block_rows", lambda data: 24)
    toy, network = members.toy_data(), nets.convnet(members.SPEC, depth=1, width=2)
    variables, normaliser = network.init(jax.random.key(0)), standardise(toy)
    data = dataclasses.replace(toy, images=np.asarray(toy.images)) if on_host else toy
    found = gradients.network_gradients(network, variables, data, normaliser)
    wanted = gradients.factors(network.apply(variables, normalise(normaliser, toy.images)),
                               toy.labels)
    like = gradients.like_gradients(64, 2, looks.feature_width(network, toy))
    for one, other, shape in zip(found, wanted, like):
        assert isinstance(one, np.ndarray) and (one.shape, one.dtype) == (shape.shape, shape.dtype)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_norms_in_all_parameters_are_those_of_one_image_after_another(norm):
    toy, network = members.toy_data(), nets.convnet(members.SPEC, depth=1, width=2, norm=norm)
    variables = network.init(jax.random.key(0))
    images, labels = normalise(standardise(toy), toy.images)[:19], toy.labels[:19]
    found = gradient_norms(network, variables, images, labels)

    def loss(params, i):
        logits = network.apply({**variables, "params": params}, images[i : i + 1]).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[i : i + 1])[0]

    wanted = [np.linalg.norm(ravel_pytree(jax.grad(loss)(variables["params"], i))[0])
              for i in range(19)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    last = measured(network.apply(variables, images), labels).gradient
    assert (found >= last * (1 - 1e-5)).all() and (found > last * 1.01).any()


def test_a_recording_of_all_parameters_differs_in_nothing_else():
    toy, network = members.toy_data(), nets.convnet(members.SPEC, depth=1, width=2)
    recording = Recording(network, optax.sgd(0.1), 16)
    trained = recording.begin(jax.random.split(jax.random.key(0), 2))
    last, whole = (recording._replace(gradient=name).look(trained, toy, standardise(toy))
                   for name in ("last_layer", "all"))
    assert whole.gradient.shape == (2, 64) and (whole.gradient >= last.gradient * 0.999).all()
    jax.tree.map(np.testing.assert_array_equal, whole._replace(gradient=0),
                 last._replace(gradient=0))
    with pytest.raises(ConfigError, match="unknown gradient 'first'"):
        recording._replace(gradient="first").look(trained, toy, standardise(toy))
