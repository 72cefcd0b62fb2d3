"""Classes in turn: each step has one class's loss, and networks wait for the last one."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets, pools
from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError
from dd_jax.objectives import (
    class_by_class,
    distribution_matching,
    feature_ridge,
    gradient_matching,
    mean_features,
    weighted_sum,
)
from dd_jax.objectives.discrepancy import Probe
from dd_jax.types import Batch, DataSpec, Objective, Pool, SyntheticSet
from tests.objectives import reference_distributions as reference
from tests.objectives import test_layer_matching as layers
from tests.objectives.reference_gradients import as_float64

SHAPE, CLASSES, IPC = (4, 4, 1), 3, 2
SPEC = DataSpec("three", SHAPE, CLASSES, ("a", "b", "c"))
NETWORK = nets.mlp(SPEC, width=6, depth=2)


def counting_pool():
    """One network for ever; counts its trainings and remembers the images of the last one."""

    def advance(state, synthetic, key):
        sums = jnp.zeros(CLASSES * IPC).at[: len(synthetic.images)].set(
            synthetic.images.sum(axis=(1, 2, 3)))
        return {**state, "count": state["count"] + 1, "sums": sums}

    return Pool(
        init=lambda key, synthetic: {"variables": NETWORK.init(key), "count": jnp.int32(0),
                                     "sums": jnp.zeros(CLASSES * IPC)},
        draw=lambda state, key: state["variables"], advance=advance)


def made(**options):
    return distribution_matching(NETWORK, counting_pool(), mean_features(), batch_size=5,
                                 supervision=lambda state: 0.5 + state["count"], **options)


@functools.cache
def data():
    rng = np.random.default_rng(4)
    return from_arrays(rng.integers(0, 256, (24, *SHAPE), np.uint8), np.arange(24) % CLASSES)


def a_set():
    images = np.random.default_rng(2).normal(size=(CLASSES * IPC, *SHAPE))
    return SyntheticSet(jnp.asarray(images, jnp.float32),
                        jnp.repeat(jnp.eye(CLASSES), IPC, axis=0))


@functools.cache
def programs(train_rows):
    """Jitted (init, sample with fetch, loss with slope, advance) in turn, and the whole loss."""
    whole, real = made(train_rows=train_rows), data()
    turns = class_by_class(whole)

    def fetched(rows):
        return jax.tree.map(lambda r: Batch(real.images[r] / 255.0, real.labels[r]), rows)

    def loss(objective, synthetic, state, batch, key):
        def of_images(x):
            return objective.loss(synthetic._replace(images=x), state, batch, key)

        return jax.value_and_grad(of_images, has_aux=True)(synthetic.images)

    return (jax.jit(turns.init), jax.jit(lambda s, k: fetched(turns.sample(real, s, k))),
            jax.jit(functools.partial(loss, turns)), jax.jit(turns.advance),
            jax.jit(functools.partial(loss, whole)))


@pytest.mark.parametrize("train_rows", [0, 4])
def test_turns_are_the_classes_losses_and_add_up_to_the_whole(train_rows):
    init, sample, loss, advance, whole = programs(train_rows)
    synthetic = a_set()
    state = init(jax.random.key(0), synthetic)
    params = as_float64(state.inner.pool["variables"]["params"])
    labels, images = np.asarray(synthetic.labels), np.asarray(synthetic.images)
    for iteration in range(2):
        total, slopes, matched = 0.0, np.zeros_like(images), []
        inner = state.inner
        for turn in range(CLASSES):
            assert int(state.turn) == turn and int(state.inner.pool["count"]) == iteration
            batch = sample(state, jax.random.key(CLASSES * iteration + turn))
            real = batch["match"] if train_rows else batch
            assert real.labels.tolist() == [[turn] * 5]  # no image of another class
            matched.append(real)
            (value, metrics), slope = loss(synthetic, state, batch, jax.random.key(turn))
            mine = slice(turn * IPC, (turn + 1) * IPC)
            expected = reference.mean_distance(
                *(reference.features_by_hand(params, x) for x in (real.images[0], images[mine])))
            expected += (0.5 + iteration) * reference.cross_entropy(
                reference.scores_by_hand(params, images[mine]), labels[mine])
            np.testing.assert_allclose(value, expected, rtol=1e-5)
            assert int(metrics["class"]) == turn
            moved = np.abs(slope).max(axis=(1, 2, 3)) > 0
            np.testing.assert_array_equal(moved, np.arange(CLASSES * IPC) // IPC == turn)
            total, slopes = total + float(value), slopes + np.asarray(slope)
            state = advance(synthetic, state, batch, jax.random.key(turn))
        real = jax.tree.map(lambda *x: jnp.concatenate(x), *matched)
        batch = {**batch, "match": real} if train_rows else real
        (value, _), slope = whole(synthetic, inner, batch, jax.random.key(9))
        np.testing.assert_allclose(total, value, rtol=1e-5)
        np.testing.assert_allclose(slopes, slope, rtol=1e-5, atol=1e-7)
    assert int(state.turn) == 0 and int(state.inner.pool["count"]) == 2
    # Networks are trained on all classes of the set, or on real images of any class.
    source = np.asarray(batch["train"].images) if train_rows else images
    sums = np.asarray(state.inner.pool["sums"])[: len(source)]
    np.testing.assert_allclose(sums, source.sum(axis=(1, 2, 3)), rtol=1e-5)


def test_a_turn_asks_for_images_of_its_class_and_the_last_one_for_those_that_train():
    turns, real = class_by_class(made(train_rows=4)), data()
    state = turns.init(jax.random.key(0), a_set())
    sample = jax.jit(lambda state, key: turns.sample(real, state, key))
    for turn in range(CLASSES):
        rows = jax.tree.map(np.asarray, sample(state._replace(turn=jnp.int32(turn)),
                                               jax.random.key(turn)))
        assert rows["match"].shape == (1, 5) and len(set(rows["match"][0])) == 5
        assert np.all(np.asarray(real.labels)[rows["match"]] == turn)
        drawn = set(rows["train"].tolist())
        assert len(drawn) == 4 if turn == CLASSES - 1 else drawn == {0}


def test_a_learned_probe_ascends_after_the_last_class_by_all_of_them():
    scale = Probe(lambda key, like: jnp.ones(()), lambda params, key: params, optax.sgd(0.01))
    discrepancy = mean_features()._replace(
        compare=lambda a, b, factor: factor * jnp.sum((a - b) ** 2), probe=scale)
    pool = pools.inner_trained_pool(NETWORK, uses=9, epochs=0)
    turns = class_by_class(distribution_matching(NETWORK, pool, discrepancy, batch_size=8))
    synthetic, real, probes = a_set(), data(), []
    state = turns.init(jax.random.key(0), synthetic)
    params = as_float64(state.inner.pool.variables["params"])

    @jax.jit
    def advance(state, key):  # of eight images in a class a batch of eight is all
        rows = turns.sample(real, state, key)
        batch = jax.tree.map(lambda r: Batch(real.images[r] / 255.0, real.labels[r]), rows)
        return turns.advance(synthetic, state, batch, key)

    for turn in range(CLASSES):
        state = advance(state, jax.random.key(turn))
        probes.append(float(state.inner.probe))
    pixels = np.asarray(real.images) / 255.0
    images, labels = np.asarray(synthetic.images), np.asarray(real.labels)
    gaps = sum(reference.mean_distance(*(
        reference.features_by_hand(params, x)
        for x in (pixels[labels == c], images[c * IPC : (c + 1) * IPC]))) for c in range(CLASSES))
    np.testing.assert_allclose(probes, [1.0, 1.0, 1.0 + 0.01 * gaps], rtol=1e-5)


def test_the_state_between_turns_is_left_alone_to_the_bit():
    init, sample, _, advance, _ = programs(0)
    synthetic = a_set()
    state = init(jax.random.key(0), synthetic)
    batch = sample(state, jax.random.key(1))
    after = advance(synthetic, state, batch, jax.random.key(2))
    assert int(after.turn) == 1
    for old, new in zip(jax.tree.leaves(state.inner), jax.tree.leaves(after.inner)):
        np.testing.assert_array_equal(old, new)


def test_an_objective_without_real_images_takes_turns_and_embeds_only_if_it_can():
    plain = Objective(
        init=lambda key, synthetic: (), sample=lambda data, state, key: (),
        loss=lambda synthetic, state, batch, key: (jnp.sum(synthetic.images**2), {"kept": 3.0}),
        advance=lambda synthetic, state, batch, key: state)
    turns, synthetic = class_by_class(plain), a_set()
    assert turns.embed is None
    state = turns.init(jax.random.key(0), synthetic)
    for turn in range(CLASSES + 1):
        value, metrics = turns.loss(synthetic, state, (), jax.random.key(0))
        c = turn % CLASSES
        mine = np.asarray(synthetic.images, np.float64)[c * IPC : (c + 1) * IPC]
        np.testing.assert_allclose(value, (mine**2).sum(), rtol=1e-5)
        assert metrics["kept"] == 3.0
        state = turns.advance(synthetic, state, (), jax.random.key(0))
    wise = class_by_class(plain._replace(embed=lambda state, x, key: x.sum((1, 2, 3))[:, None]))
    assert wise.embed(state, synthetic.images, jax.random.key(0)).shape == (CLASSES * IPC, 1)


def test_what_trains_networks_stays_whole():
    """Whatever the number of its rows, also where the loss looks at them."""

    def loss(synthetic, state, batch, key):
        assert batch["match"].images.shape == (1, 5, *SHAPE)
        assert batch["train"].images.shape == (CLASSES, *SHAPE)
        return jnp.sum(batch["match"].labels), {}

    turns = class_by_class(Objective(
        init=lambda key, synthetic: (), sample=None, loss=loss, advance=lambda s, state, *_: state))
    labels = jnp.broadcast_to(jnp.arange(CLASSES)[:, None], (CLASSES, 5))
    batch = {"match": Batch(jnp.zeros((CLASSES, 5, *SHAPE)), labels),
             "train": Batch(jnp.zeros((CLASSES, *SHAPE)), jnp.arange(CLASSES))}
    state = turns.init(jax.random.key(0), a_set())
    for turn in range(CLASSES):
        value, _ = turns.loss(a_set(), state, batch, jax.random.key(0))
        assert int(value) == 5 * turn
        state = turns.advance(a_set(), state, batch, jax.random.key(0))


def test_a_weighted_sum_takes_turns_too():
    parts, weights, synthetic = [made(), made(train_rows=4)], [1.0, 3.0], a_set()
    whole = weighted_sum(parts, weights)
    turns, real = class_by_class(whole), data()

    @jax.jit
    def losses(synthetic):
        state, each, batches = turns.init(jax.random.key(0), synthetic), [], []
        for c in range(CLASSES):
            at = state._replace(turn=jnp.int32(c))
            rows = turns.sample(real, at, jax.random.key(c))
            batch = jax.tree.map(lambda r: Batch(real.images[r] / 255.0, real.labels[r]), rows)
            each.append(turns.loss(synthetic, at, batch, jax.random.key(2))[0])
            batches.append((batch[0], batch[1]["match"]))
        plain, named = jax.tree.map(lambda *x: jnp.concatenate(x), *batches)
        batch = (plain, {"match": named, "train": batch[1]["train"]})
        return each, whole.loss(synthetic, state.inner, batch, jax.random.key(2))[0]

    each, total = losses(synthetic)
    np.testing.assert_allclose(sum(each), total, rtol=1e-5)
    assert min(each) > 0


def batch_norm(match, *args):
    network = nets.convnet(SPEC, depth=1, width=2, norm="batch")
    return match(network, pools.fresh_pool(network), *args, batch_size=4)


# Objectives that are no sum over classes, and why.
JOINT = {
    "feature_ridge": (
        lambda: feature_ridge(NETWORK, pools.fresh_pool(NETWORK), batch_size=CLASSES),
        r"real batch \[3\], expected \[3, n\], class by class"),
    "jointly": (
        lambda: gradient_matching(NETWORK, pools.fresh_pool(NETWORK), batch_size=4,
                                  class_wise=False),
        "1 of 3 classes, but they are matched jointly"),
    "gradients-batch-norm": (lambda: batch_norm(gradient_matching),
                             "1 of 3 classes, but batch normalisation looks at all"),
    "features-batch-norm": (lambda: batch_norm(distribution_matching, mean_features()),
                            "1 of 3 classes, but batch normalisation looks at all"),
}


@pytest.mark.parametrize("name", JOINT)
def test_what_needs_all_classes_together_takes_no_turns_and_says_why(name):
    build, said = JOINT[name]
    whole, real = build(), data()

    def loss(objective):
        def shapes(synthetic):
            state = objective.init(jax.random.key(0), synthetic)
            rows = objective.sample(real, state, jax.random.key(1))
            batch = jax.tree.map(lambda r: Batch(real.images[r] / 255.0, real.labels[r]), rows)
            return objective.loss(synthetic, state, batch, jax.random.key(2))[0]

        return jax.eval_shape(shapes, a_set())

    assert loss(whole).shape == ()  # as a whole it can be
    with pytest.raises(ConfigError, match=said):
        loss(class_by_class(whole))


def test_layers_match_in_every_turn_without_their_discrimination():
    """Without that term a class's loss is its own sum of the reference, at the last turn, too."""
    objective = class_by_class(layers.made(discrimination=0.0))
    images = layers.images_of(2, CLASSES * layers.IPC)
    real = layers.images_of(1, CLASSES, layers.REAL) + 0.5
    synthetic = SyntheticSet(jnp.asarray(images, jnp.float32),
                             jnp.repeat(jnp.eye(CLASSES), layers.IPC, axis=0))
    batch = layers.real_batch(real.astype(np.float32))

    @jax.jit
    def turn(state):
        def of_images(x):
            return objective.loss(synthetic._replace(images=x), state, batch, jax.random.key(1))

        return (*jax.value_and_grad(of_images, has_aux=True)(synthetic.images),
                objective.advance(synthetic, state, batch, jax.random.key(2)))

    state = layers.started(objective)
    params = as_float64(state.inner["params"])
    for c in range(CLASSES):
        (value, metrics), slope, state = turn(state)
        mine = slice(c * layers.IPC, (c + 1) * layers.IPC)
        own, truth = layers.layers(params, images[mine]), layers.layers(params, real[c])
        wanted = layers.FEATURE_WEIGHT * ((own[1].mean(0) - truth[1].mean(0)) ** 2).sum()
        for weight, a, b in zip(layers.WEIGHTS, own[0], truth[0]):
            wanted += weight * ((a.mean(0) - b.mean(0)) ** 2).sum()
        np.testing.assert_allclose(value, wanted, rtol=1e-4)
        assert int(metrics["class"]) == c and float(metrics["discrimination"]) == 0.0
        moved = np.abs(slope).max(axis=(1, 2, 3))
        assert np.all(np.isfinite(moved))
        np.testing.assert_array_equal(moved > 0, np.arange(len(images)) // layers.IPC == c)
    assert int(state.turn) == 0
