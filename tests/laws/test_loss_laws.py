"""The laws of every loss: what is true of it alone, and in the gradient of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import train
from dd_jax.train.supervised import measured_gradient
from dd_jax.types import Network, Outputs

CLASSES, COUNT = 3, 5


def _problem(seed=0):
    """(logits, free labels) in float64."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, COUNT, CLASSES))


def _log_softmax(z):
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


# name -> (targets of free labels, the loss by NumPy, (logits, targets) where it is zero).
LOSSES = {
    "cross_entropy": (
        lambda y: y, lambda z, t: -(t * _log_softmax(z)).sum(axis=-1),
        (np.array([[800.0, 0.0, 0.0]]), np.array([[1.0, 0.0, 0.0]]))),
    "integer_cross_entropy": (
        lambda y: y.argmax(axis=-1), lambda z, t: -_log_softmax(z)[np.arange(len(z)), t],
        (np.array([[0.0, 800.0, 0.0]]), np.array([1]))),
    "squared_error": (
        lambda y: y, lambda z, t: 0.5 * ((z - t) ** 2).sum(axis=-1), (_problem()[0],) * 2),
    "mean_squared_error": (
        lambda y: y, lambda z, t: ((z - t) ** 2).mean(axis=-1), (_problem()[0],) * 2),
}


@pytest.fixture(params=sorted(train.LOSSES))
def member(request):
    """(loss, logits, targets, by NumPy, where it is zero)."""
    target_of, by_numpy, zero = LOSSES[request.param]
    logits, free = _problem()
    with jax.enable_x64(True):
        yield train.LOSSES[request.param], logits, target_of(free), by_numpy, zero


def test_it_is_its_formula_for_each_image(member):
    loss, logits, targets, by_numpy, _ = member
    ours = loss(jnp.asarray(logits), jnp.asarray(targets))
    assert ours.shape == (COUNT,)
    np.testing.assert_allclose(ours, by_numpy(logits, targets), rtol=1e-12)


def test_its_gradient_is_that_of_differences_and_of_each_image_alone(member):
    loss, logits, targets, by_numpy, _ = member
    jacobian = jax.jacobian(loss)(jnp.asarray(logits), jnp.asarray(targets))
    wanted = np.zeros((COUNT, COUNT, CLASSES))
    for place in np.ndindex(COUNT, CLASSES):
        step = np.zeros_like(logits)
        step[place] = 1e-6
        ends = [by_numpy(logits + way * step, targets) for way in (1, -1)]
        wanted[(slice(None), *place)] = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(jacobian, wanted, atol=1e-8)


def test_it_is_zero_without_slope_where_its_definition_says(member):
    loss, *_, (logits, targets) = member
    value, slope = jax.value_and_grad(lambda z: jnp.sum(loss(z, jnp.asarray(targets))))(
        jnp.asarray(logits))
    np.testing.assert_allclose(value, 0.0, atol=1e-12)
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)


def test_a_batch_takes_the_mean_and_padding_does_not_count(member):
    """The logits themselves are the parameters; chunks do not change it."""
    loss, logits, targets, _, _ = member
    network = Network(init=None, apply=lambda variables, images, train=False: Outputs(
        variables["params"] + images, images))
    moved = jnp.asarray(logits)
    weights = jnp.asarray([1.0, 0.0, 2.0, 0.5, 0.0])

    def gradient(weights, chunk):
        return measured_gradient(
            network, {"params": jnp.zeros(CLASSES)}, moved, jnp.asarray(targets), loss=loss,
            weights=weights, chunk=chunk, measure=lambda z, t: jnp.ones(len(z)))

    each = jnp.einsum("iik->ik", jax.jacobian(loss)(moved, jnp.asarray(targets)))
    for chunk in (1, 2, COUNT):
        plain, weighted = gradient(None, chunk), gradient(weights, chunk)
        np.testing.assert_allclose(plain[0], each.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(weighted[0], weights @ each / 3.5, rtol=1e-12)
        assert (plain[2], weighted[2]) == (COUNT, 3.5)
