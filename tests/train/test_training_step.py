"""Steps of training on a synthetic set: optimisers, rates, batches and their derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.labels.losses import squared_error
from dd_jax.train.adjoints import full, recursive
from dd_jax.train.plans import batch_plan
from dd_jax.train.training_step import StepInput, start, training_step
from dd_jax.train.unroll import unroll
from dd_jax.types import Augmentation, SyntheticSet
from tests.laws import members
from tests.objectives import reference_gradients as reference

NETWORK = nets.mlp(members.SPEC, width=4, depth=2)
OPTIMIZERS = {"heavy ball": optax.trace(0.9), "adam": optax.scale_by_adam(eps_root=1e-8)}


def synthetic(count=4, rate=0.1, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.dirichlet(np.ones(2), size=count)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype),
                        SyntheticSet(rng.normal(size=(count, *members.SHAPE)), labels,
                                     np.asarray(rate)))


def params_of(network=NETWORK, dtype=np.float32):
    params = jax.jit(network.init)(jax.random.key(1))["params"]
    return jax.tree.map(lambda x: x.astype(dtype), params)


def trained(step, params, optimizer, inputs, shared, adjoint=None):
    return unroll(step, start(params, optimizer), inputs, shared, adjoint=adjoint)[0]


def close(ours, wanted, **tolerance):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def in_numpy(name, params, shared, plan, rates):
    """The optimisers' formulas on gradients that are derived by hand."""
    flat, tree = jax.tree.flatten(reference.as_float64(params))
    first, second = ([np.zeros_like(p) for p in flat] for _ in range(2))
    for i, (rows, rate) in enumerate(zip(plan, rates)):
        params = jax.tree.unflatten(tree, flat)
        gradient = reference.gradient(params, shared.images[rows], shared.labels[rows])
        for j, g in enumerate(jax.tree.leaves(gradient)):
            if name == "adam":
                first[j] = 0.9 * first[j] + 0.1 * g
                second[j] = 0.999 * second[j] + 0.001 * g * g
                m, v = first[j] / (1 - 0.9 ** (i + 1)), second[j] / (1 - 0.999 ** (i + 1))
                way = m / (np.sqrt(v + 1e-8) + 1e-8)
            else:
                way = first[j] = 0.9 * first[j] + g
            flat[j] = flat[j] - rate * way
    return jax.tree.unflatten(tree, flat)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_follow_their_formulas_and_differences(name):
    """Batches, one rate per step; the derivative in images, labels and rates in float64."""
    optimizer = OPTIMIZERS[name]
    with jax.enable_x64(True):
        shared = synthetic(rate=[0.1, 0.03, 0.07, 0.2], dtype=np.float64)
        params, plan = params_of(dtype=np.float64), batch_plan(jax.random.key(2), 4, 3, 4)
        inputs = StepInput(rows=plan, position=jnp.arange(4))
        step = training_step(NETWORK, optimizer=optimizer)

        @jax.jit
        @jax.value_and_grad
        def loss(shared):
            end = trained(step, params, optimizer, inputs, shared, recursive())
            return sum(jnp.sum(p**2) for p in jax.tree.leaves(end))

        value, gradient = loss(shared)
        end = in_numpy(name, params, jax.tree.map(np.asarray, shared), np.asarray(plan),
                       shared.learning_rate)
        np.testing.assert_allclose(value, sum(np.sum(p**2) for p in jax.tree.leaves(end)),
                                   rtol=1e-12)
        rng = np.random.default_rng(3)
        for part in ("images", "labels", "learning_rate"):
            here = getattr(shared, part)
            way = rng.normal(size=here.shape)
            ends = [loss(shared._replace(**{part: here + h * way}))[0] for h in (1e-6, -1e-6)]
            np.testing.assert_allclose(np.sum(getattr(gradient, part) * way),
                                       (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-8)


def test_chunks_are_differentiated_one_by_one():
    """On a CPU 64 images are four chunks: one graph instead of four, the same gradient."""
    shared, found, memory = synthetic(64), [], []
    network = nets.convnet(members.SPEC, depth=1, width=4)
    params = params_of(network)
    for rematerialise in (False, True):
        step = training_step(network, rematerialise=rematerialise)

        def loss(shared, step=step):
            end = trained(step, params, optax.identity(), StepInput(position=jnp.arange(1)),
                          shared, full())
            return sum(jnp.sum(p**2) for p in jax.tree.leaves(end))

        compiled = jax.jit(jax.grad(loss)).lower(shared).compile()
        found.append(compiled(shared))
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
    close(*found, rtol=1e-4, atol=1e-6)
    print(memory)
    assert memory[1] < 0.6 * memory[0]


def test_inactive_steps_change_nothing_and_pass_gradients_on():
    shared, optimizer = synthetic(), OPTIMIZERS["adam"]
    step, params = training_step(NETWORK, optimizer=optimizer), params_of()

    def run(active, shared):
        steps = StepInput(position=jnp.arange(len(active)), active=active)
        return unroll(step, start(params, optimizer), steps, shared)

    @jax.jit
    def both(active, shared):
        def loss(shared):
            end = run(active, shared)
            return sum(jnp.sum(p**2) for p in jax.tree.leaves(end[0])), end

        return jax.grad(loss, has_aux=True)(shared)

    on = jnp.array([1.0, 1.0, 0.0, 0.0])
    gradient, end = both(on, shared)
    again, end_again = both(jnp.array([0.0, 1.0, 0.0, 1.0]), shared)
    nothing, still = both(jnp.zeros(4), shared)
    close(end, end_again, rtol=1e-6)
    close(gradient, again, rtol=1e-5, atol=1e-7)
    assert end[1].count == 2
    close(still, start(params, optimizer), rtol=0)
    assert not any(np.any(g) for g in jax.tree.leaves(nothing))
    # A rate far too large is for the caller to notice: values that are not finite, no exception.
    gradient, end = both(jnp.ones(4), shared._replace(learning_rate=jnp.float32(1e38)))
    assert not all(np.all(np.isfinite(p)) for p in jax.tree.leaves(end[0]))


def test_the_augmentation_is_drawn_with_the_steps_key_for_every_image():
    drawn = Augmentation(lambda key, count: jax.random.uniform(key, (count, 1, 1, 1)),
                         lambda params, images: images * params)
    shared, params = synthetic(3), params_of()
    keys = jax.random.split(jax.random.key(5), 1)
    step = training_step(NETWORK, augmentation=drawn, loss=squared_error)
    inputs = StepInput(rows=jnp.array([[2, 0]]), key=keys)
    # NumPy arrays and a plain number do, too.
    ours = trained(step, params, optax.identity(), inputs,
                   SyntheticSet(np.asarray(shared.images), np.asarray(shared.labels), 0.1), full())

    def loss(params):
        images = shared.images[jnp.array([2, 0])] * drawn.draw(keys[0], 2)
        gap = NETWORK.apply({"params": params}, images).logits - shared.labels[jnp.array([2, 0])]
        return 0.25 * jnp.sum(gap**2)

    close(ours, jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params)), rtol=1e-5)


def test_batch_normalisation_takes_the_statistics_of_the_batch():
    network = nets.convnet(members.SPEC, depth=1, width=2, norm="batch")
    variables = jax.jit(network.init)(jax.random.key(0))
    shared, params = synthetic(18), variables["params"]  # more than one chunk of others

    @jax.jit
    def compared(shared):
        ours = trained(training_step(network), params, optax.identity(),
                       StepInput(position=jnp.arange(1)), shared)

        def loss(params):
            logits = network.apply({**variables, "params": params}, shared.images, True).logits
            return optax.softmax_cross_entropy(logits, shared.labels).mean()

        return ours, jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    close(*compared(shared), rtol=1e-4, atol=1e-6)


def test_what_a_step_cannot_do_is_refused():
    other = NETWORK._replace(init=lambda key: {**NETWORK.init(key), "initial": jnp.ones(())})
    for network, options, found in ((NETWORK, dict(loss="hinge"), "hinge"), (other, {}, "initial")):
        with pytest.raises(ConfigError, match=found):
            training_step(network, **options)
    shared, params, sgd = synthetic(), params_of(), optax.identity()
    inputs = StepInput(rows=jnp.zeros((2, 1), jnp.int32))
    for rate in (None, jnp.ones((2, 2)), jnp.ones(2)):
        with pytest.raises(ConfigError, match="learning.rate"):
            trained(training_step(NETWORK), params, sgd, inputs,
                    shared._replace(learning_rate=rate))
    noise = Augmentation(lambda key, count: key, lambda params, images: images)
    with pytest.raises(ConfigError, match="keys"):
        trained(training_step(NETWORK, augmentation=noise), params, sgd, inputs, shared)


def test_a_plan_is_permutations_one_after_another():
    plan = np.asarray(batch_plan(jax.random.key(0), 10, 4, 10))
    assert plan.shape == (10, 4) and plan.dtype == np.int32
    passes = plan.reshape(4, 10)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(10), (4, 1)))
    assert len({tuple(row) for row in passes}) == 4
    for used in range(1, 41):
        counts = np.bincount(plan.ravel()[:used], minlength=10)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(batch_plan(jax.random.key(0), 10, 4, 3), plan[:3])
    assert not np.array_equal(batch_plan(jax.random.key(1), 10, 4, 10), plan)
    even = np.asarray(batch_plan(jax.random.key(0), 10, 5, 8))
    assert all(len(set(batch)) == 5 for batch in even)
    assert batch_plan(jax.random.key(0), 10, None, 3) is batch_plan(jax.random.key(0), 10, 10, 3)
    for size, batch_size, steps in ((0, 1, 1), (10, 0, 1), (10, 2.5, 1), (10, None, 0)):
        with pytest.raises(ConfigError):
            batch_plan(jax.random.key(0), size, batch_size, steps)
