"""Gradient matching against a float64 reference in NumPy, and its options one by one."""

from __future__ import annotations

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import augment, nets, pools
from dd_jax.errors import ConfigError
from dd_jax.objectives import class_by_class, gradient_matching
from dd_jax.types import Batch, DataSpec, SyntheticSet
from tests.objectives import reference_gradients as reference

SHAPE, CLASSES, IPC, REAL = (8, 8, 1), 3, 2, 19  # 19 real images: more than one chunk, not even
SPEC = DataSpec("three", SHAPE, CLASSES, ("a", "b", "c"))
NETWORK = nets.mlp(SPEC, width=8, depth=2)
BUILDERS = {
    "class_wise": (dict(class_wise=True), reference.class_wise_loss),
    "jointly": (dict(class_wise=False), reference.joint_loss),
}


def images_of(seed, *count):
    return np.random.default_rng(seed).normal(size=(*count, *SHAPE))


def soft_labels():
    rng = np.random.default_rng(5)
    hard = np.repeat(np.eye(CLASSES), IPC, axis=0)
    return 0.9 * hard + 0.1 * rng.dirichlet(np.ones(CLASSES), size=CLASSES * IPC)


def made(network=NETWORK, **options):
    pool = pools.inner_trained_pool(network, uses=4, epochs=0)
    return gradient_matching(network, pool, batch_size=REAL, **options)


def real_batch(count=REAL):
    labels = jnp.broadcast_to(jnp.arange(CLASSES)[:, None], (CLASSES, count))
    return Batch(jnp.asarray(images_of(1, CLASSES, count)), labels)


def in_float64(objective, synthetic):
    state = objective.init(jax.random.key(0), synthetic)
    variables = jax.tree.map(lambda x: x.astype(jnp.float64), state.variables)
    return state._replace(variables=variables)


def evaluated(objective, synthetic=None, *, key=1):
    """(value, slope in images, slope in labels, parameters), all float64."""
    with jax.enable_x64(True):
        synthetic = synthetic or (images_of(2, CLASSES * IPC), soft_labels())
        synthetic = SyntheticSet(*map(jnp.asarray, synthetic))
        state = in_float64(objective, synthetic)

        @jax.jit
        def both(synthetic, state, batch, key):
            return jax.value_and_grad(lambda s: objective.loss(s, state, batch, key)[0])(synthetic)

        value, slope = both(synthetic, state, real_batch(), jax.random.key(key))
        assert value.dtype == jnp.float64
        return (float(value), np.asarray(slope.images), np.asarray(slope.labels),
                reference.as_float64(state.variables["params"]))


@pytest.mark.parametrize("coupling", BUILDERS)
def test_value_and_meta_gradient_equal_the_reference_and_its_differences(coupling):
    options, wanted = BUILDERS[coupling]
    images, labels, real = images_of(2, CLASSES * IPC), soft_labels(), images_of(1, CLASSES, REAL)
    results = {how: evaluated(made(classes=how, **options)) for how in ("map", "vmap", 2)}
    params = results["map"][-1]
    np.testing.assert_allclose(results["map"][0], wanted(params, images, labels, real), rtol=1e-9)
    slope = reference.central_differences(lambda x: wanted(params, x, labels, real), images)
    size = np.abs(slope).max()
    np.testing.assert_allclose(results["map"][1], slope, atol=2e-6 * size, rtol=0)
    to_labels = reference.central_differences(lambda y: wanted(params, images, y, real), labels)
    np.testing.assert_allclose(results["map"][2], to_labels, rtol=0,
                               atol=2e-6 * np.abs(to_labels).max())
    for other in ("vmap", 2):  # of three classes, two together and one alone
        for one, together in zip(results["map"][:3], results[other][:3]):
            np.testing.assert_allclose(one, together, rtol=1e-6, atol=1e-9 * size)


@pytest.mark.parametrize("class_wise", [True, False], ids=["class_wise", "jointly"])
def test_memory_is_that_of_the_classes_that_are_together(class_wise):
    """A hundred classes, ten together, need hardly more working memory than ten."""
    def working_bytes(count, how):
        spec = DataSpec("many", SHAPE, count, tuple(map(str, range(count))))
        objective = made(nets.convnet(spec, depth=2, width=4), classes=how, class_wise=class_wise)
        synthetic = SyntheticSet(jnp.zeros((count, *SHAPE)), jnp.eye(count))
        state = jax.eval_shape(objective.init, jax.random.key(0), synthetic)
        batch = Batch(jax.ShapeDtypeStruct((count, 64, *SHAPE), jnp.float32),
                      jax.ShapeDtypeStruct((count, 64), jnp.int32))

        def slope(images, state, batch, key):
            return jax.grad(lambda x: objective.loss(
                synthetic._replace(images=x), state, batch, key)[0])(images)

        compiled = jax.jit(slope).lower(synthetic.images, state, batch, jax.random.key(1)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert working_bytes(100, 10) < 2 * working_bytes(10, 10)


def test_how_many_classes_are_together_follows_the_hardware(monkeypatch):
    def together(batch_size, classes="auto"):
        pool = pools.fresh_pool(NETWORK)
        objective = gradient_matching(NETWORK, pool, batch_size=batch_size, classes=classes)
        return objective.loss.args[0].together

    assert together(256) == "auto"  # one by one, on a CPU
    module = sys.modules["dd_jax.objectives.gradient_matching"]  # the function has its name
    monkeypatch.setattr(module, "on_cpu", lambda: False)
    assert [together(size) for size in (256, 64, 5000)] == [10, 40, 1]
    assert together(256, 3) == 3 and together(256, "vmap") == "vmap"
    with pytest.raises(ConfigError, match="mapping is 0"):
        together(256, 0)


def test_a_turn_is_the_loss_of_one_class():
    objective = class_by_class(made())
    images, labels, real = images_of(2, CLASSES * IPC), soft_labels(), images_of(1, CLASSES, REAL)
    synthetic = SyntheticSet(jnp.float32(images), jnp.float32(labels))
    state, batch = objective.init(jax.random.key(0), synthetic), real_batch()
    params = reference.as_float64(state.inner.variables["params"])
    loss, advance = jax.jit(objective.loss), jax.jit(objective.advance)
    for step in range(2 * CLASSES):
        value, _ = loss(synthetic, state, batch, jax.random.key(step))
        expected = reference.class_loss(params, images, labels, real, step % CLASSES)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        assert int(state.inner.uses) == step // CLASSES  # the pool waits for the last class
        state = advance(synthetic, state, batch, jax.random.key(step))


def test_more_images_than_most_are_a_random_choice():
    objective = made(most=1)
    images, labels, real = images_of(2, CLASSES * IPC), soft_labels(), images_of(1, CLASSES, REAL)
    value, slope, _, params = evaluated(objective)
    possible = []
    for chosen in itertools.product(range(IPC), repeat=CLASSES):
        rows = [c * IPC + i for c, i in enumerate(chosen)]
        possible.append(reference.class_wise_loss(params, images[rows], labels[rows], real))
    nearest = int(np.argmin(np.abs(np.array(possible) - value)))
    np.testing.assert_allclose(possible[nearest], value, rtol=1e-9)
    chosen = list(itertools.product(range(IPC), repeat=CLASSES))[nearest]
    moved = np.abs(slope).max(axis=(1, 2, 3)).reshape(CLASSES, IPC) > 0
    np.testing.assert_array_equal(moved, np.arange(IPC) == np.array(chosen)[:, None])


def test_real_and_synthetic_images_of_a_class_share_one_draw():
    """The same images on both sides are at distance zero only under the same transformation."""
    strong = augment.dsa(SHAPE, strategy="crop_scale", mode="multiple", scale=2.0)
    objective = made(augmentation=strong, distance="squared")
    both = jnp.asarray(images_of(3, CLASSES, 4), jnp.float32)
    labels = jnp.repeat(jnp.eye(CLASSES), 4, axis=0)
    synthetic = SyntheticSet(both.reshape(-1, *SHAPE), labels)
    batch = Batch(both, jnp.broadcast_to(jnp.arange(CLASSES)[:, None], (CLASSES, 4)))
    state = objective.init(jax.random.key(0), synthetic)
    loss = jax.jit(objective.loss)
    moved = synthetic._replace(images=synthetic.images[:, ::-1])
    values, others = zip(*(
        (float(loss(synthetic, state, batch, jax.random.key(i))[0]),
         float(loss(moved, state, batch, jax.random.key(i))[0])) for i in range(3)))
    assert max(values) < 1e-10
    assert min(others) > 1e-3 and len(set(others)) == 3  # other keys, other transformations


def test_batch_normalisation_is_frozen_on_sixteen_real_images_of_each_class():
    network = nets.convnet(SPEC, depth=1, width=4, norm="batch")
    objective = made(network, distance="squared", class_wise=True)
    synthetic = SyntheticSet(jnp.asarray(images_of(2, CLASSES * IPC), jnp.float32),
                             jnp.asarray(soft_labels(), jnp.float32))
    batch = jax.tree.map(lambda x: x.astype(jnp.float32) if x.ndim > 2 else x, real_batch())

    @jax.jit
    def compared(batch):
        state = objective.init(jax.random.key(0), synthetic)
        variables = state.variables
        seen = batch.images[:, :16].reshape(-1, *SHAPE)
        statistics = network.apply(variables, seen, True).batch_stats

        def gradient(images, labels):
            def loss(params):
                logits = network.apply({"params": params, "batch_stats": statistics}, images).logits
                return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))

            return jax.tree.leaves(jax.grad(loss)(variables["params"]))

        total = 0.0
        for c in range(CLASSES):
            rows = slice(c * IPC, (c + 1) * IPC)
            hard = jax.nn.one_hot(batch.labels[c], CLASSES)
            pairs = zip(gradient(batch.images[c], hard),
                        gradient(synthetic.images[rows], synthetic.labels[rows]))
            total += sum(jnp.sum((g - s) ** 2) for g, s in pairs)
        return objective.loss(synthetic, state, batch, jax.random.key(1))[0], total

    ours, expected = compared(batch)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    # What the seventeenth image of a class looks like has no part in the statistics, but in the
    # gradients: an image that nobody sees would leave the loss as it is.
    other = batch._replace(images=batch.images.at[:, 16:].add(1.0))
    np.testing.assert_allclose(*compared(other), rtol=1e-4)


def test_embeddings_are_the_features_of_the_network_in_use():
    objective = made()
    synthetic = SyntheticSet(jnp.zeros((3, *SHAPE)), jnp.eye(3))
    state = objective.init(jax.random.key(4), synthetic)
    images = jnp.asarray(images_of(7, 5), jnp.float32)
    features, slope = jax.jit(lambda x: (
        objective.embed(state, x, jax.random.key(0)),
        jax.grad(lambda y: objective.embed(state, y, jax.random.key(0)).sum())(x)))(images)
    params = reference.as_float64(state.variables["params"])
    np.testing.assert_allclose(features, reference.hidden(params, images), rtol=1e-4, atol=1e-6)
    assert not np.any(slope)


@pytest.mark.parametrize("builder", BUILDERS)
def test_one_class_is_refused(builder):
    """The softmax of one class is constant: gradients of all networks would be zero."""
    one = SyntheticSet(jnp.zeros((2, *SHAPE)), jnp.ones((2, 1)))
    with pytest.raises(ConfigError, match="1 class, expected at least 2.*'dm'"):
        made(**BUILDERS[builder][0]).init(jax.random.key(0), one)


@pytest.mark.parametrize("pool,options,said", [
    (pools.plateau_pool(NETWORK, max_uses=20, max_epochs=20), {}, "looks at real images"),
    (pools.fresh_pool, {}, "pool is fresh_pool.*not the factory"),
    (pools.fresh_pool(NETWORK), dict(augmentation=augment.dsa), "augmentation is dsa"),
], ids=["watching", "factory", "augmentation"])
def test_what_it_cannot_use_is_refused(pool, options, said):
    with pytest.raises(ConfigError, match=said):
        gradient_matching(NETWORK, pool, **options)


def test_an_unknown_distance_is_refused():
    with pytest.raises(ConfigError, match="euclid"):
        made(distance="euclid")
