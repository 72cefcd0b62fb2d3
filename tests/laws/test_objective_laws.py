"""The laws of every objective."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax.data import standardise
from dd_jax.distill import outer
from tests.laws import members


@pytest.fixture(params=sorted(members.OBJECTIVES))
def name(request):
    return request.param


@pytest.fixture
def objective(name):
    members.toy_data()  # cached before any trace
    return members.OBJECTIVES[name]()


def fetch(objective, state, key):
    """The batch of one step in model space."""
    data = members.toy_data()
    rows = objective.sample(data, state, key)
    return outer.in_model_space(standardise(data), outer.fetch(data, rows))


def prepare(objective, *, seed=0, kind="noise"):
    synthetic = members.start(kind)
    state = objective.init(jax.random.key(seed), synthetic)
    return synthetic, state, fetch(objective, state, jax.random.key(seed + 100))


# Whose loss is another one after a step. At their first turn they are, in part, other members or
# what tests/objectives/test_class_by_class.py and test_alternating.py compare with references.
LATER = ("class_by_class", "alternating", "distribution_matching/queue")


@functools.cache
def after_one_step(name):
    """(state, its batch); the first step of these objectives leaves no trace of the set."""
    with jax.enable_x64(False):  # the same whichever law asks first
        objective = members.OBJECTIVES[name]()
        synthetic, state, batch = prepare(objective)
        state = jax.jit(objective.advance)(synthetic, state, batch, jax.random.key(1))
        return state, fetch(objective, state, jax.random.key(101))


def prepare_turn(name, objective, *, kind="noise"):
    """`prepare`, or for objectives of LATER the state after one step: the second turn."""
    if name.startswith(LATER):
        return members.start(kind), *after_one_step(name)
    return prepare(objective, kind=kind)


def image_gradient(objective, synthetic, state, batch, key):
    def loss(images):
        return objective.loss(synthetic._replace(images=images), state, batch, key)[0]

    return jax.value_and_grad(loss)(synthetic.images)


def test_state_keeps_its_tree_shapes_and_dtypes(objective):
    synthetic, state, batch = prepare(objective)
    after = objective.advance(synthetic, state, batch, jax.random.key(1))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after)):
        assert a.shape == b.shape and a.dtype == b.dtype


def test_no_leaf_of_the_state_is_a_key(objective):
    _, state, _ = prepare(objective)
    for leaf in jax.tree.leaves(state):
        assert not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("kind", ["noise", "real", "constant"])
def test_loss_and_gradient_are_finite(name, objective, kind):
    synthetic, state, batch = prepare_turn(name, objective, kind=kind)
    value, gradient = jax.jit(
        lambda *args: image_gradient(objective, *args)
    )(synthetic, state, batch, jax.random.key(2))
    assert value.shape == () and np.isfinite(value) and np.all(np.isfinite(gradient))


def test_same_key_same_value_other_key_other_value(objective):
    synthetic, state, batch = prepare(objective)
    loss = jax.jit(objective.loss)
    first, again = (loss(synthetic, state, batch, jax.random.key(3))[0] for _ in "ab")
    assert first == again
    other_state = objective.init(jax.random.key(9), synthetic)
    other_batch = fetch(objective, other_state, jax.random.key(99))
    other = loss(synthetic, other_state, other_batch, jax.random.key(4))[0]
    assert first != other


def test_metrics_are_scalars(objective):
    synthetic, state, batch = prepare(objective)
    metrics = jax.eval_shape(objective.loss, synthetic, state, batch, jax.random.key(0))[1]
    for name, value in metrics.items():
        assert jnp.shape(value) == (), name


def test_gradient_equals_central_differences_in_float64(name, objective):
    if name in members.BIASED:
        pytest.skip(f"biased: {members.BIASED[name]}")
    with jax.enable_x64(True):
        wide = lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x  # noqa: E731
        synthetic, state, batch = jax.tree.map(wide, prepare_turn(name, objective))
        key = jax.random.key(5)
        direction = jnp.asarray(np.random.default_rng(0).normal(size=synthetic.images.shape))
        gradient = jax.jit(lambda: image_gradient(objective, synthetic, state, batch, key)[1])()

        @jax.jit
        def along(t):
            moved = synthetic._replace(images=synthetic.images + t * direction)
            return objective.loss(moved, state, batch, key)[0]

        # ReLU kinks between the two points spoil a difference: take the best of three step sizes.
        errors = []
        for step in (1e-4, 1e-5, 1e-6):
            numeric = (along(step) - along(-step)) / (2 * step)
            analytic = jnp.vdot(gradient, direction)
            errors.append(float(jnp.abs(numeric - analytic) / jnp.abs(numeric)))
        assert min(errors) < 1e-5, errors


def descend(objective, seed, steps=60):
    """A few outer steps on the images; returns losses and images."""
    synthetic, state, _ = prepare(objective, seed=seed)
    optimizer = optax.adam(0.05)

    def body(carry, step):
        images, opt_state, state = carry
        key = jax.random.fold_in(jax.random.key(seed), step)
        batch = fetch(objective, state, key)
        current = synthetic._replace(images=images)
        value, gradient = image_gradient(objective, current, state, batch, key)
        updates, opt_state = optimizer.update(gradient, opt_state)
        images = optax.apply_updates(images, updates)
        state = objective.advance(synthetic._replace(images=images), state, batch, key)
        return (images, opt_state, state), value

    start = (synthetic.images, optimizer.init(synthetic.images), state)
    (images, _, _), losses = jax.lax.scan(body, start, jnp.arange(steps))
    return losses, images


def test_descent_lowers_the_loss(objective):
    losses, _ = jax.jit(lambda: descend(objective, 0))()
    assert float(losses[-10:].mean()) < float(losses[:10].mean())


def test_compiles_once(objective):
    synthetic, state, batch = prepare(objective)
    traces = []

    @jax.jit
    def step(synthetic, state, batch, key):
        traces.append(1)
        value, gradient = image_gradient(objective, synthetic, state, batch, key)
        return value, objective.advance(synthetic, state, batch, key)

    for seed in range(4):
        key = jax.random.key(seed)
        batch = fetch(objective, state, key)
        value, state = step(synthetic, state, batch, key)
        synthetic = synthetic._replace(images=synthetic.images + seed)
    assert len(traces) == 1


def test_vmap_over_seeds_equals_separate_runs(objective):
    def run(seed):
        synthetic = members.start("noise")
        state = objective.init(jax.random.key(seed), synthetic)
        key = jax.random.fold_in(jax.random.key(seed), 1)
        batch = fetch(objective, state, key)
        state = objective.advance(synthetic, state, batch, key)
        return image_gradient(objective, synthetic, state, batch, key)

    many = jax.jit(jax.vmap(run))(jnp.arange(3))
    for seed in range(3):
        value, gradient = jax.jit(run)(seed)
        np.testing.assert_allclose(many[0][seed], value, rtol=1e-3)
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(many[1][seed] / scale, gradient / scale, atol=2e-3)
