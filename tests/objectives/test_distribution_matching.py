"""Distribution matching as a whole, and its options, against float64 NumPy with loops."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets, objectives, pools
from dd_jax.backend import mean_in_chunks
from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError
from dd_jax.objectives import Discrepancy, Probe, distribution_matching
from dd_jax.types import Augmentation, Batch, DataSpec, Pool, SyntheticSet
from tests.objectives import reference_distributions as reference
from tests.objectives.reference_gradients import as_float64, central_differences

SHAPE, CLASSES, IPC, REAL = (4, 4, 1), 3, 2, 19  # 19 real images: more than one chunk, not even
SPEC = DataSpec("three", SHAPE, CLASSES, ("a", "b", "c"))
NETWORK = nets.mlp(SPEC, width=6, depth=2)
DISCREPANCIES = {
    "mean": objectives.mean_features(),
    "gaussian": objectives.kernel_means("gaussian"),
    "attention4": objectives.attention(power=4, weight=0.3),
}


@pytest.mark.parametrize("size", [None, 1, 4, 7, 9])
def test_a_mean_in_chunks_is_the_mean(size):
    x = np.random.default_rng(0).normal(size=(7, 2))
    with jax.enable_x64(True):
        found = jax.jit(lambda x: mean_in_chunks(
            lambda v: {"a": v**3, "b": v[:, 0]}, x, size=size))(jnp.asarray(x))
        assert found["a"].dtype == jnp.float64
    np.testing.assert_allclose(found["a"], (x**3).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["b"], x[:, 0].mean(), rtol=1e-12)


def images_of(seed, *count, shape=SHAPE):
    return np.random.default_rng(seed).normal(size=(*count, *shape))


def soft_labels():
    rng = np.random.default_rng(5)
    hard = np.repeat(np.eye(CLASSES), IPC, axis=0)
    return 0.9 * hard + 0.1 * rng.dirichlet(np.ones(CLASSES), size=CLASSES * IPC)


def real_batch(count=REAL, shape=SHAPE):
    labels = jnp.broadcast_to(jnp.arange(CLASSES)[:, None], (CLASSES, count))
    return Batch(jnp.asarray(images_of(1, CLASSES, count, shape=shape)), labels)


def made(discrepancy="mean", network=NETWORK, **options):
    pool = pools.inner_trained_pool(network, uses=4, epochs=0)
    if isinstance(discrepancy, str):
        discrepancy = DISCREPANCIES[discrepancy]
    return distribution_matching(network, pool, discrepancy, batch_size=REAL, **options)


def floats(tree, dtype):
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def evaluated(objective, *, keys=(1,), shape=SHAPE):
    """(values, slopes in images, variables) in float64, one for each key."""
    with jax.enable_x64(True):
        synthetic = SyntheticSet(jnp.asarray(images_of(2, CLASSES * IPC, shape=shape)),
                                 jnp.asarray(soft_labels()))
        state = floats(jax.jit(objective.init)(jax.random.key(0), synthetic), jnp.float64)

        @jax.jit
        def both(images, state, batch, key):
            return jax.value_and_grad(lambda x: objective.loss(
                synthetic._replace(images=x), state, batch, key)[0])(images)

        values, slopes = zip(*(both(synthetic.images, state, real_batch(shape=shape),
                                    jax.random.key(k)) for k in keys))
        assert values[0].dtype == jnp.float64
        return [float(v) for v in values], [np.asarray(s) for s in slopes], state.pool.variables


def class_wise(name, params, images, labels, real, *, weight, scale):
    """scale * sum_c d_c + weight * sum_c mean CE_c, by the network's formula."""
    total = 0.0
    for c in range(CLASSES):
        rows = slice(c * IPC, (c + 1) * IPC)
        sides = [([], reference.features_by_hand(params, x)) for x in (real[c], images[rows])]
        total += scale * reference.by_name(name, *sides)
        total += weight * reference.cross_entropy(
            reference.scores_by_hand(params, images[rows]), labels[rows])
    return total


@pytest.mark.parametrize("name", ["mean", "gaussian"])
def test_the_objective_is_the_sum_over_classes_of_the_formula(name):
    options = dict(scale=3.0, supervision=lambda state: 0.25 + state.uses, chunk=4)
    images, labels, real = images_of(2, CLASSES * IPC), soft_labels(), images_of(1, CLASSES, REAL)
    mapped, at_once = (evaluated(made(name, classes=how, **options)) for how in ("map", "vmap"))
    params = as_float64(mapped[2]["params"])
    own = dict(weight=0.25, scale=3.0)
    np.testing.assert_allclose(mapped[0][0], class_wise(name, params, images, labels, real, **own),
                               rtol=1e-10)
    if name == "gaussian":  # K(real, real) is costly in loops; one class at a time is enough
        images = images[:IPC]
        width = reference.bandwidth(
            *(reference.features_by_hand(params, x) for x in (real[0], images)))

        def value(x):
            sides = [([], reference.features_by_hand(params, v)) for v in (real[0], x)]
            entropy = reference.cross_entropy(reference.scores_by_hand(params, x), labels[:IPC])
            return 3.0 * reference.by_name(name, *sides, width) + 0.25 * entropy
    else:
        def value(x):
            return class_wise(name, params, x, labels, real, **own)

    slope = central_differences(value, images)
    np.testing.assert_allclose(mapped[1][0][: len(images)], slope, rtol=0,
                               atol=1e-7 * np.abs(slope).max())
    np.testing.assert_allclose(mapped[0], at_once[0], rtol=1e-12)
    np.testing.assert_allclose(mapped[1], at_once[1], atol=1e-12 * np.abs(mapped[1][0]).max())


FACTORS = (0.5, 1.0, -1.5)


def multiplied():
    """An augmentation of three equally likely outcomes."""

    def apply(params, images):
        factors = jnp.asarray(FACTORS, images.dtype)[params]
        return images * factors[:, None, None, None]

    return Augmentation(lambda key, count: jax.random.randint(key, (count,), 0, 3), apply)


def test_one_draw_serves_the_real_and_synthetic_images_and_their_supervision():
    objective = made(augmentation=multiplied(), supervision=lambda state: 0.5)
    images, labels, real = images_of(2, CLASSES * IPC), soft_labels(), images_of(1, CLASSES, REAL)
    values, _, variables = evaluated(objective, keys=range(6))
    params = as_float64(variables["params"])
    terms = np.zeros((CLASSES, len(FACTORS)))
    for c, f in np.ndindex(*terms.shape):
        mine, theirs = FACTORS[f] * images[c * IPC : (c + 1) * IPC], FACTORS[f] * real[c]
        terms[c, f] = reference.mean_distance(
            *(reference.features_by_hand(params, x) for x in (theirs, mine)))
        terms[c, f] += 0.5 * reference.cross_entropy(
            reference.scores_by_hand(params, mine), labels[c * IPC : (c + 1) * IPC])
    drawn = []
    for value in values:
        possible = {choice: sum(terms[c, f] for c, f in enumerate(choice))
                    for choice in itertools.product(range(3), repeat=CLASSES)}
        nearest = min(possible, key=lambda choice: abs(possible[choice] - value))
        np.testing.assert_allclose(value, possible[nearest], rtol=1e-10)
        drawn.append(nearest)
    assert len(set(drawn)) > 2  # every step draws anew
    assert any(len(set(choice)) > 1 for choice in drawn)  # and every class for itself


def test_more_images_than_most_are_a_random_choice():
    objective = made(most=1, supervision=lambda state: 0.5)
    images, labels, real = images_of(2, CLASSES * IPC), soft_labels(), images_of(1, CLASSES, REAL)
    values, slopes, variables = evaluated(objective, keys=range(4))
    params = as_float64(variables["params"])
    terms = np.zeros((CLASSES, IPC))
    for c, i in np.ndindex(*terms.shape):
        one = slice(c * IPC + i, c * IPC + i + 1)
        terms[c, i] = reference.mean_distance(
            *(reference.features_by_hand(params, x) for x in (real[c], images[one])))
        terms[c, i] += 0.5 * reference.cross_entropy(
            reference.scores_by_hand(params, images[one]), labels[one])
    choices = set()
    for value, slope in zip(values, slopes):
        moved = np.abs(slope).max(axis=(1, 2, 3)).reshape(CLASSES, IPC) > 0
        assert (moved.sum(axis=1) == 1).all()
        np.testing.assert_allclose(value, terms[moved].sum(), rtol=1e-10)
        choices.add(tuple(moved.argmax(axis=1)))
    assert len(choices) > 1


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_attention_in_a_convnet_frozen_or_with_batch_statistics_of_all_classes(norm):
    shape = (8, 8, 1)
    network = nets.convnet(DataSpec("maps", shape, CLASSES, ("a", "b", "c")), depth=2, width=3,
                           norm=norm)
    options = dict(supervision=lambda state: 0.25, scale=2.0)
    mapped = evaluated(made("attention4", network, classes="map", **options), shape=shape)
    images = images_of(2, CLASSES * IPC, shape=shape)
    real = images_of(1, CLASSES, REAL, shape=shape)
    with jax.enable_x64(True):
        outputs = jax.jit(network.apply, static_argnums=2)

        def total(train, images=images):
            """All classes' images in one pass, which matters with batch statistics only."""
            of_real = outputs(mapped[2], jnp.asarray(real.reshape(-1, *shape)), train)
            of_set = outputs(mapped[2], jnp.asarray(images), train)
            found = 0.0
            for c in range(CLASSES):
                one, other = (
                    ([np.asarray(t)[c * n : (c + 1) * n] for t in out.taps],
                     np.asarray(out.features)[c * n : (c + 1) * n])
                    for out, n in ((of_real, REAL), (of_set, IPC)))
                found += 2.0 * reference.attention_distance(one, other, power=4, weight=0.3)
                rows = slice(c * IPC, (c + 1) * IPC)
                found += 0.25 * reference.cross_entropy(of_set.logits[rows], soft_labels()[rows])
            return found

        np.testing.assert_allclose(mapped[0][0], total(norm == "batch"), rtol=1e-10)
        if norm == "batch":
            assert abs(total(False) / mapped[0][0] - 1) > 1e-2
        # Along one direction through all images: batch statistics couple them.
        direction = images_of(9, CLASSES * IPC, shape=shape)
        step = 1e-6
        slope = (total(norm == "batch", images + step * direction)
                 - total(norm == "batch", images - step * direction)) / (2 * step)
    np.testing.assert_allclose((mapped[1][0] * direction).sum(), slope, rtol=1e-5)


def recording_pool(network):
    """One network for ever; remembers the images' sums and the labels that it is trained on."""

    def advance(state, synthetic, key):
        return {**state, "sums": synthetic.images.sum(axis=(1, 2, 3)), "labels": synthetic.labels}

    return Pool(init=lambda key, synthetic: {"variables": network.init(key)},
                draw=lambda state, key: state["variables"], advance=advance)


def test_the_pool_is_trained_on_random_real_images_where_train_rows_says_so():
    data = from_arrays(np.random.default_rng(0).integers(0, 256, (24, *SHAPE), np.uint8),
                       np.arange(24) % CLASSES)
    labels = np.asarray(data.labels)
    synthetic = SyntheticSet(jnp.ones((CLASSES, *SHAPE)), jnp.eye(CLASSES))

    @functools.partial(jax.jit, static_argnums=0)
    def trained(train_rows, data):
        objective = distribution_matching(NETWORK, recording_pool(NETWORK), DISCREPANCIES["mean"],
                                          batch_size=4, train_rows=train_rows)
        state = objective.init(jax.random.key(0), synthetic)
        rows = objective.sample(data, state, jax.random.key(1))
        batch = jax.tree.map(lambda r: Batch(data.images[r] / 255.0, data.labels[r]), rows)
        return rows, objective.advance(synthetic, state, batch, jax.random.key(2)).pool

    rows, pool = trained(5, data)
    assert rows["match"].shape == (CLASSES, 4) and rows["train"].shape == (5,)
    np.testing.assert_array_equal(labels[rows["match"]], [[c] * 4 for c in range(CLASSES)])
    seen = np.asarray(data.images)[rows["train"]] / 255.0
    np.testing.assert_allclose(pool["sums"], seen.sum(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(pool["labels"], np.eye(CLASSES)[labels[rows["train"]]])
    rows, pool = trained(0, data)
    np.testing.assert_array_equal(labels[rows], [[c] * 4 for c in range(CLASSES)])
    np.testing.assert_array_equal(pool["sums"], [16.0] * CLASSES)  # the synthetic set


def temporary_bytes(discrepancy, count):
    network = nets.convnet(DataSpec("maps", (8, 8, 1), CLASSES, ("a", "b", "c")), depth=1, width=8)
    objective = made(discrepancy, network, chunk=8, classes="map")
    synthetic = SyntheticSet(jnp.zeros((CLASSES, 8, 8, 1)), jnp.eye(CLASSES))
    state = jax.jit(objective.init)(jax.random.key(0), synthetic)
    batch = floats(real_batch(count, (8, 8, 1)), jnp.float32)

    def slope(images, batch):
        return jax.grad(lambda x: objective.loss(
            synthetic._replace(images=x), state, batch, jax.random.key(0))[0])(images)

    compiled = jax.jit(slope).lower(synthetic.images, batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_real_batch_where_means_are_compared():
    few, many = (temporary_bytes("mean", count) for count in (8, 64))
    assert many < 1.25 * few  # kernel means, which store all features, take 2.9 times as much


def toy_probe(optimizer=None):
    """Looks along one direction; the class means' distance there, times the probe's own factor."""

    def init(key, like):
        assert like.shape[1:] == (6,)
        return jax.random.normal(key, like.shape[1:], like.dtype)

    def draw(params, key):
        return params, 1.0 + jax.random.randint(key, (), 0, 3)

    def compare(real, synthetic, looked):
        direction, factor = looked
        return factor * jnp.dot(direction, real - synthetic) ** 2

    probe = Probe(init, draw, optimizer)
    return Discrepancy(lambda outputs: outputs.features, compare, True, probe)


def test_a_learned_probe_ascends_in_advance_and_not_by_the_loss():
    rate, scale = 0.01, 2.0
    objective = distribution_matching(NETWORK, recording_pool(NETWORK), toy_probe(optax.sgd(rate)),
                                      scale=scale)
    images, real = images_of(2, CLASSES * IPC), images_of(1, CLASSES, REAL)
    with jax.enable_x64(True):
        synthetic = SyntheticSet(jnp.asarray(images), jnp.asarray(soft_labels()))
        state = floats(jax.jit(objective.init)(jax.random.key(0), synthetic), jnp.float64)
        batch = real_batch()

        @jax.jit
        def looked(state, key):
            value, slope = jax.value_and_grad(lambda probe: objective.loss(
                synthetic, state._replace(probe=probe), batch, key)[0])(state.probe)
            return value, slope, objective.advance(synthetic, state, batch, key)

        values, slopes, after = jax.tree.map(
            np.asarray, tuple(zip(*(looked(state, jax.random.key(k)) for k in range(6)))))
        state = jax.tree.map(np.asarray, state)
    assert not any(np.any(s) for s in slopes)
    params = as_float64(state.pool["variables"]["params"])
    gaps = [reference.mean_of(reference.features_by_hand(params, real[c]))
            - reference.mean_of(reference.features_by_hand(params, images[c * IPC : (c + 1) * IPC]))
            for c in range(CLASSES)]
    t = state.probe
    choices = list(itertools.product((1, 2, 3), repeat=CLASSES))
    drawn = []
    for value in values:
        possible = [scale * sum(f * (t @ g) ** 2 for f, g in zip(c, gaps)) for c in choices]
        np.testing.assert_allclose(value, min(possible, key=lambda p: abs(p - value)), rtol=1e-10)
        drawn.append(choices[int(np.argmin(np.abs(np.array(possible) - value)))])
    assert len(set(drawn)) > 2 and any(len(set(choice)) > 1 for choice in drawn)
    for new in after:  # up the slope, whichever draw
        steps = [rate * scale * sum(2 * f * (t @ g) * g for f, g in zip(c, gaps)) for c in choices]
        gap = min(np.abs(new.probe - (t + step)).max() for step in steps)
        assert gap < 1e-10
        np.testing.assert_array_equal(new.pool["labels"], soft_labels())  # the pool moves on too


def test_the_loss_of_a_batch_norm_network_has_no_gradient_into_its_probe():
    network = nets.convnet(DataSpec("maps", (4, 4, 1), CLASSES, ("a", "b", "c")), depth=1, width=2,
                           norm="batch")
    probe = Probe(lambda key, like: jnp.ones(like.shape[1:]), lambda params, key: params)
    discrepancy = Discrepancy(lambda outputs: outputs.features,
                              lambda real, made, t: jnp.dot(t, real - made) ** 2, True, probe)
    objective = distribution_matching(network, recording_pool(network), discrepancy)
    synthetic = SyntheticSet(jnp.ones((CLASSES, 4, 4, 1)), jnp.eye(CLASSES))
    batch = Batch(jax.random.normal(jax.random.key(1), (CLASSES, 2, 4, 4, 1)),
                  jnp.zeros((CLASSES, 2), jnp.int32))
    state = objective.init(jax.random.key(0), synthetic)
    slope = jax.jit(jax.grad(lambda t: objective.loss(
        synthetic, state._replace(probe=t), batch, jax.random.key(2))[0]))(state.probe)
    np.testing.assert_array_equal(slope, np.zeros_like(slope))


def test_embeddings_are_the_features_of_the_network_in_use():
    objective = made("gaussian")
    synthetic = SyntheticSet(jnp.zeros((CLASSES, *SHAPE)), jnp.eye(CLASSES))
    state = jax.jit(objective.init)(jax.random.key(4), synthetic)
    images = jnp.asarray(images_of(7, 5), jnp.float32)
    found = jax.jit(objective.embed)(state, images, jax.random.key(0))
    params = as_float64(state.pool.variables["params"])
    np.testing.assert_allclose(found, reference.features_by_hand(params, images), rtol=1e-4,
                               atol=1e-6)


@pytest.mark.parametrize(("option", "value", "said"), [
    ("batch_size", 0, "batch_size"), ("batch_size", 2.5, "batch_size"), ("most", 0, "most"),
    ("train_rows", -1, "train_rows"), ("classes", "loop", "loop"),
])
def test_options_that_cannot_be_are_refused(option, value, said):
    pool = pools.fresh_pool(NETWORK)
    with pytest.raises(ConfigError, match=said):
        distribution_matching(NETWORK, pool, DISCREPANCIES["mean"], **{option: value})


def test_attention_needs_a_network_with_two_maps():
    shallow = nets.convnet(SPEC, depth=1, width=3)
    synthetic, key = SyntheticSet(jnp.zeros((3, *SHAPE)), jnp.eye(3)), jax.random.key(0)
    batch = jax.eval_shape(lambda: floats(real_batch(), jnp.float32))
    for network in (NETWORK, shallow):
        objective = made("attention4", network)
        with pytest.raises(ConfigError, match="two maps"):
            jax.eval_shape(
                lambda batch, o=objective: o.loss(synthetic, o.init(key, synthetic), batch, key),
                batch)
