"""The laws of every loss: what is true of it alone, and in the gradient of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.labels.losses import named
from dd_jax.labels.losses.table import OF_LOGITS
from dd_jax.train.supervised import measured_gradient
from dd_jax.types import Network, Outputs
from tests.labels import reference_losses
from tests.laws.loss_cases import CASES, COUNT, SPREAD, shuffled

CLASSES = (2, 100)


@pytest.fixture(params=sorted(CASES))
def case(request):
    """(loss, its row in the table, the same by NumPy), in float64."""
    row, name = CASES[request.param], request.param.partition(":")[0]
    options = dict(row.options)
    by_numpy = getattr(reference_losses, {"free_cross_entropy": "cross_entropy"}.get(name, name))
    with jax.enable_x64(True):
        yield named(name, **options), row, lambda *told: by_numpy(*told, **options)


def problem(row, classes, spread, seed=0):
    """(logits [B, K], targets), float64 NumPy."""
    rng = np.random.default_rng(seed)
    return 1.5 * rng.normal(size=(COUNT, classes)), row.told(rng, classes, spread)


def as_jax(told, dtype=None):
    """Arrays of JAX, those of floats in a dtype."""
    def array(x):
        return jnp.asarray(x, dtype if np.asarray(x).dtype.kind == "f" else None)

    return jax.tree.map(array, told)


def test_the_table_has_every_loss():
    assert {name.partition(":")[0] for name in CASES} == set(OF_LOGITS)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("spread", SPREAD)
def test_it_is_its_formula_and_its_slope_that_of_differences(case, classes, spread):
    loss, row, by_numpy = case
    logits, told = problem(row, classes, spread)
    rng = np.random.default_rng(1)
    counts = rng.normal(size=COUNT)
    theirs = as_jax(told)
    ours, pull = jax.vjp(lambda z: loss(z, theirs), jnp.asarray(logits))
    assert ours.shape == (COUNT,)
    np.testing.assert_allclose(ours, by_numpy(logits, told, logits), rtol=1e-8, atol=1e-10)
    slope = np.asarray(pull(jnp.asarray(counts))[0])
    moves = (np.eye(2 * COUNT).reshape(-1, COUNT, 2) if classes == 2
             else rng.normal(size=(4, COUNT, classes)))
    for move in moves:
        ends = [counts @ by_numpy(logits + way * move, told, logits) for way in (1e-6, -1e-6)]
        scale = np.abs(slope).max() + 1e-3
        np.testing.assert_allclose(np.sum(slope * move), (ends[0] - ends[1]) / 2e-6, rtol=1e-6,
                                   atol=1e-6 * scale)


@pytest.mark.parametrize("classes", (2, 6))
def test_it_is_zero_without_slope_where_its_definition_says(case, classes):
    loss, row, _ = case
    if row.zero is None:
        pytest.skip("it has a value where student and teacher agree")
    logits, told = row.zero(problem(row, classes, "soft")[0])
    theirs = as_jax(told)
    value, pull = jax.vjp(lambda z: loss(z, theirs), jnp.asarray(logits))
    np.testing.assert_allclose(value, 0.0, atol=1e-10)
    if row.flat:
        np.testing.assert_allclose(pull(jnp.ones(COUNT))[0], 0.0, atol=1e-10)


@pytest.mark.parametrize("classes", (2, 6))
def test_what_it_does_not_see(case, classes):
    """A number added to each row of logits; in which order the classes are numbered."""
    loss, row, _ = case
    logits, told = problem(row, classes, "soft")
    rng = np.random.default_rng(2)
    plain = np.asarray(loss(jnp.asarray(logits), as_jax(told)))
    moved = np.asarray(loss(jnp.asarray(logits + rng.normal(size=(COUNT, 1))), as_jax(told)))
    assert np.allclose(moved, plain, rtol=1e-9, atol=1e-9) == row.shift
    if row.shuffle:
        order = rng.permutation(classes)
        np.testing.assert_allclose(
            loss(jnp.asarray(logits[:, order]), as_jax(shuffled(told, order))), plain, rtol=1e-9,
            atol=1e-12)


def test_rows_are_alone_unless_it_says_otherwise(case):
    loss, row, _ = case
    logits, told = map(as_jax, problem(row, 6, "soft"))
    moved = loss(logits.at[0, 0].add(1.0), told) - loss(logits, told)
    assert bool(jnp.any(jnp.abs(moved[1:]) > 1e-12)) == loss.whole


@pytest.mark.parametrize("classes", CLASSES)
def test_extreme_logits_are_finite_in_float32(case, classes):
    """+-80, both networks, with and against one another, and students that say nothing."""
    loss, row, _ = case
    with jax.enable_x64(False):
        slope = jax.jit(jax.value_and_grad(lambda z, told: jnp.sum(loss(z, told))))
        for seed, spread in enumerate(SPREAD):
            logits, told = problem(row, classes, spread, seed=seed)
            # Only a teacher's logits go beyond 2.
            far = jax.tree.map(lambda x: np.where(np.abs(x) > 2, 80 * np.sign(x), x)
                               if np.ndim(x) > 1 else x, told)
            for student in (80 * np.sign(logits), -80 * np.abs(np.sign(logits)), 0 * logits,
                            80 * np.eye(classes)[np.arange(COUNT) % classes]):
                value, gradient = slope(jnp.float32(student), as_jax(far, jnp.float32))
                assert value.dtype == gradient.dtype == jnp.float32
                assert np.isfinite(value) and np.isfinite(gradient).all(), (spread, value)


def test_a_batch_takes_the_mean_and_padding_does_not_count(case):
    """The parameters multiply the logits; chunks do not change it, and a whole loss has none."""
    loss, row, _ = case
    logits, told = map(as_jax, problem(row, 4, "soft"))
    network = Network(init=None, apply=lambda variables, images, train=False: Outputs(
        variables["params"] * images, images))
    weights = jnp.asarray([1.0, 0.0, 2.0, 0.5, 0.0, 0.25])

    def gradient(weights, chunk):
        return measured_gradient(
            network, {"params": jnp.ones(4)}, logits, told, loss=loss, weights=weights,
            chunk=chunk, measure=lambda z, t: jnp.ones(len(z)))

    each = jnp.einsum("ijk,jk->ik", jax.jacobian(loss)(logits, told), logits)
    plain, weighted = gradient(None, COUNT), gradient(weights, 4)
    close = dict(rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(plain[0], each.mean(axis=0), **close)
    np.testing.assert_allclose(weighted[0], weights @ each / 3.75, **close)
    assert (plain[2], weighted[2]) == (COUNT, 3.75)
