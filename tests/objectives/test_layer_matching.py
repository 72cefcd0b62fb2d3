"""Layer matching against a float64 reference in NumPy, and what it keeps of real images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import augment, nets, pools
from dd_jax.errors import ConfigError
from dd_jax.objectives.layer_matching import layer_matching
from dd_jax.types import Batch, DataSpec, Pool, SyntheticSet
from tests.laws import members
from tests.objectives import reference_gradients as reference

SHAPE, CLASSES, IPC, REAL = (8, 8, 1), 3, 2, 7
SPEC = DataSpec("three", SHAPE, CLASSES, ("a", "b", "c"))
NETWORK = nets.convnet(SPEC, depth=2, width=3)
WEIGHTS, FEATURE_WEIGHT, DISCRIMINATION = (0.3, 0.7), 2.5, 0.05


def images_of(seed, *count):
    return np.random.default_rng(seed).normal(size=(*count, *SHAPE))


def fixed_pool(network=NETWORK):
    """A pool whose state is one network, which stays."""
    return Pool(init=lambda key, synthetic: network.init(key), draw=lambda state, key: state,
                advance=lambda state, synthetic, key: state)


def made(network=NETWORK, **options):
    options = {"weights": WEIGHTS, "feature_weight": FEATURE_WEIGHT, "batch_size": REAL,
               "discrimination": DISCRIMINATION, **options}
    return layer_matching(network, fixed_pool(network), **options)


def started(objective, seed=0):
    synthetic = SyntheticSet(jnp.zeros((CLASSES, *SHAPE)), jnp.eye(CLASSES))
    return jax.jit(objective.init)(jax.random.key(seed), synthetic)


def real_batch(images):
    labels = jnp.broadcast_to(jnp.arange(CLASSES)[:, None], images.shape[:2])
    return Batch(jnp.asarray(images), labels)


def layers(params, images):
    """(ReLU outputs of both blocks, the flattened last map after pooling), in float64."""
    x = np.pad(np.asarray(images, np.float64), ((0, 0), (2, 2), (2, 2), (0, 0)))
    taps = []
    for block in range(2):
        p, norm = params[f"conv{block}"], params[f"norm{block}"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = np.zeros((*x.shape[:3], p["kernel"].shape[-1])) + p["bias"]
        for i in range(3):
            for j in range(3):
                y += padded[:, i:i + x.shape[1], j:j + x.shape[2]] @ p["kernel"][i, j]
        mean = y.mean(axis=(1, 2), keepdims=True)
        var = ((y - mean) ** 2).mean(axis=(1, 2), keepdims=True)
        y = norm["scale"] * (y - mean) / np.sqrt(var + 1e-5) + norm["bias"]
        taps.append(np.maximum(y, 0))
        n, h, w, c = y.shape
        x = taps[-1].reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
    return taps, x.reshape(len(x), -1)


def wanted(params, images, real):
    """The three sums of the paper, class after class."""
    own, truth = ([layers(params, part) for part in parts]
                  for parts in (images.reshape(CLASSES, IPC, *SHAPE), real))
    total = 0.0
    for c in range(CLASSES):
        for w, a, b in zip(WEIGHTS, truth[c][0], own[c][0]):
            total += w * ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
        difference = truth[c][1].mean(axis=0) - own[c][1].mean(axis=0)
        total += FEATURE_WEIGHT * difference @ difference
        for f in truth[c][1]:
            scores = [f @ own[k][1].mean(axis=0) for k in range(CLASSES)]
            total += DISCRIMINATION * (np.log(np.exp(scores).sum()) - scores[c])
    return total


def test_value_and_gradient_equal_the_reference_and_its_differences():
    images, real = images_of(2, CLASSES * IPC), images_of(1, CLASSES, REAL) + 0.5
    in_chunks, at_once = made(chunk=3), made(classes="vmap")
    state = started(in_chunks)
    with jax.enable_x64(True):
        synthetic = SyntheticSet(jnp.asarray(images), jnp.repeat(jnp.eye(CLASSES), IPC, axis=0))
        state = jax.tree.map(lambda x: x.astype(jnp.float64), state)

        @jax.jit
        def both(synthetic, state, batch):
            key = jax.random.key(1)
            value, slope = jax.value_and_grad(
                lambda s: in_chunks.loss(s, state, batch, key)[0])(synthetic)
            return value, slope.images, at_once.loss(synthetic, state, batch, key)[0]

        value, slope, other = both(synthetic, state, real_batch(real))
        assert value.dtype == jnp.float64
        value, slope, other = float(value), np.asarray(slope), float(other)
        params = reference.as_float64(state["params"])
    np.testing.assert_allclose([value, other], wanted(params, images, real), rtol=1e-9)
    only = slice(1, 4)  # images of two classes
    numeric = reference.central_differences(lambda x: wanted(params, x, real), images, only=only)
    size = np.abs(numeric).max()
    np.testing.assert_allclose(slope[only], numeric[only], atol=1e-6 * size, rtol=0)


@pytest.fixture(scope="module")
def measured():
    """(loss, its gradient in all of its arguments) of real images of each class, compiled once."""
    objective = made(discrimination=0.0)
    same = jnp.asarray(images_of(3, CLASSES, IPC), jnp.float32)
    synthetic = SyntheticSet(same.reshape(-1, *SHAPE), jnp.repeat(jnp.eye(CLASSES), IPC, axis=0))
    state = started(objective)

    @jax.jit
    def loss(real, images):
        return jax.value_and_grad(
            lambda real, images: objective.loss(synthetic._replace(images=images), state,
                                                real_batch(real), jax.random.key(1))[0],
            argnums=(0, 1))(real, images)

    return loss, same, synthetic.images


def test_identical_sets_are_at_distance_zero_without_the_discrimination(measured):
    loss, same, images = measured
    value, (_, slope) = loss(same, images)
    assert float(value) < 1e-9 and np.abs(slope).max() < 1e-4
    assert float(loss(same[::-1], images)[0]) > 1.0  # other classes


def test_real_images_have_no_derivative(measured):
    loss, same, images = measured
    _, (to_real, to_images) = loss(same + 1.0 * same**2, images)
    assert not np.any(to_real) and np.abs(to_images).max() > 1e-3


def test_real_and_synthetic_images_of_a_class_share_one_draw():
    strong = augment.dsa(SHAPE, strategy="crop_scale", mode="multiple", scale=2.0)
    objective = made(discrimination=0.0, augmentation=strong)
    both = jnp.asarray(images_of(3, CLASSES, IPC), jnp.float32)
    synthetic = SyntheticSet(both.reshape(-1, *SHAPE), jnp.repeat(jnp.eye(CLASSES), IPC, axis=0))
    state = started(objective)
    loss = jax.jit(lambda images, key: objective.loss(
        synthetic._replace(images=images), state, real_batch(both), key)[0])
    moved = synthetic.images[:, ::-1]
    values, others = zip(*((float(loss(synthetic.images, jax.random.key(i))),
                            float(loss(moved, jax.random.key(i)))) for i in range(3)))
    assert max(values) < 1e-9
    assert min(others) > 1e-2 and len(set(others)) == 3


def temporary_bytes(batch_size, *, ipc=1):
    network = nets.convnet(SPEC, depth=1, width=16)
    objective = made(network, weights=(1.0,), batch_size=batch_size, chunk=4)
    images = jax.ShapeDtypeStruct((CLASSES * ipc, *SHAPE), jnp.float32)
    synthetic = SyntheticSet(images, jax.ShapeDtypeStruct((CLASSES * ipc, CLASSES), jnp.float32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(network.init, key)
    batch = Batch(jax.ShapeDtypeStruct((CLASSES, batch_size, *SHAPE), jnp.float32),
                  jax.ShapeDtypeStruct((CLASSES, batch_size), jnp.int32))

    def gradient(images, rest, state, batch, key):
        return jax.grad(lambda x: objective.loss(rest._replace(images=x), state, batch, key)[0])(
            images)

    compiled = jax.jit(gradient).lower(images, synthetic, state, batch, key).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_synthetic_set_and_not_with_real_activations():
    more = 64 - 8
    pixels, maps, features = 64 * 4, 12 * 12 * 16 * 4, 6 * 6 * 16 * 4
    small, large = temporary_bytes(8), temporary_bytes(64)
    # One copy of the images and of the features, perhaps two; far from the maps.
    assert large - small < 2.5 * more * CLASSES * (pixels + features) < more * CLASSES * maps
    assert temporary_bytes(8, ipc=16) - small > 15 * CLASSES * maps


def test_what_it_asks_for_and_hands_to_a_pool_that_measures():
    given = {}

    def advance(state, synthetic, key, real):
        given.update(real=real)
        return state

    pool = fixed_pool()._replace(advance=advance, watches=True)
    objective = layer_matching(NETWORK, pool, weights=WEIGHTS, batch_size=5, measure_size=4)
    data = members.toy_data()
    rows = objective.sample(data, None, jax.random.key(0))
    assert {name: r.shape for name, r in rows.items()} == {"match": (2, 5), "measure": (2, 4)}
    for r in rows.values():
        labels = np.asarray(data.labels)[r]
        np.testing.assert_array_equal(labels, np.arange(2)[:, None] + np.zeros_like(labels))
    assert not set(np.ravel(rows["measure"])) <= set(np.ravel(rows["match"]))  # another draw
    batch = {name: Batch(data.images[r] / 255.0, data.labels[r]) for name, r in rows.items()}
    objective.advance(members.start(), None, batch, jax.random.key(1))
    assert given["real"] is batch["measure"]
    assert made().sample(data, None, jax.random.key(0)).shape == (2, REAL)


def test_embeddings_are_the_last_map():
    objective = made()
    state = started(objective, seed=4)
    images = images_of(7, 4)
    features = jax.jit(objective.embed)(state, jnp.float32(images), jax.random.key(0))
    expected = layers(reference.as_float64(state["params"]), images)[1]
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("weights", [(1.0,), (0.1, 0.1, 1.0)], ids=["fewer", "more"])
def test_every_tap_needs_a_weight(weights):
    with pytest.raises(ConfigError, match=f"2 taps .* {len(weights)} weights"):
        started(made(weights=weights))


def test_batch_normalisation_is_refused():
    network = nets.convnet(SPEC, depth=2, width=3, norm="batch")
    with pytest.raises(ConfigError, match="batch normalisation"):
        started(made(network))


def test_the_discrimination_needs_all_classes():
    synthetic = SyntheticSet(jnp.zeros((1, *SHAPE)), jnp.eye(3)[:1])
    objective = made()
    state = started(objective)
    batch = jax.tree.map(lambda x: x[:1], real_batch(images_of(1, CLASSES, REAL)))
    with pytest.raises(ConfigError, match="1 of 3 classes"):
        objective.loss(synthetic, state, batch, jax.random.key(0))


def test_one_class_has_nothing_that_it_is_told_apart_from():
    one = SyntheticSet(jnp.zeros((2, *SHAPE)), jnp.ones((2, 1)))
    with pytest.raises(ConfigError, match="1 class, expected at least 2.*discrimination=0.0"):
        made().init(jax.random.key(0), one)
    made(discrimination=0.0).init(jax.random.key(0), one)


@pytest.mark.parametrize("options", [
    {"weights": (0.1, -1.0)}, {"feature_weight": float("nan")}, {"discrimination": "0.01"},
    {"augmentation": augment.dsa},
    {"batch_size": 0}, {"measure_size": -1}, {"chunk": 0}, {"classes": "all"},
], ids=lambda o: next(iter(o)))
def test_bad_settings_are_refused_by_name(options):
    name = {"classes": "mapping"}.get(next(iter(options)), next(iter(options)))
    with pytest.raises(ConfigError, match=name):
        made(**options)


def test_a_fresh_pool_takes_no_real_images():
    objective = layer_matching(NETWORK, pools.fresh_pool(NETWORK), weights=WEIGHTS)
    assert objective.advance(members.start(), (), None, jax.random.key(0)) == ()
