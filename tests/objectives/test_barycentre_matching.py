"""Barycentre matching against a float64 reference in NumPy, and its options one by one."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.augment.block import random_roll
from dd_jax.errors import ConfigError
from dd_jax.objectives.barycentre_matching import barycentre_matching
from dd_jax.train.class_targets import ClassTargets
from dd_jax.types import Augmentation, DataSpec, Network, Outputs, SyntheticSet

SHAPE, CLASSES, IPC, WIDTH = (8, 8, 2), 3, 2, 4
SPEC = DataSpec("three", SHAPE, CLASSES, ("a", "b", "c"))
NETWORK = nets.convnet(SPEC, depth=2, width=WIDTH, norm="batch")
KEY = jax.random.key(1)


@functools.cache
def variables():
    """A network whose running statistics are not those of its start, float64 in NumPy."""
    rng = np.random.default_rng(0)
    made = jax.jit(NETWORK.init)(jax.random.key(0))
    return jax.tree.map(lambda x: np.float64(x) + rng.uniform(0, 0.5, x.shape), made)


def images(seed=2):
    return np.random.default_rng(seed).normal(size=(CLASSES * IPC, *SHAPE))


def labels():
    return np.repeat(np.eye(CLASSES), IPC, axis=0)


@functools.cache
def targets():
    rng = np.random.default_rng(3)

    def pair():
        return rng.normal(size=(CLASSES, WIDTH)), rng.uniform(size=(CLASSES, WIDTH))

    return ClassTargets(rng.normal(size=(CLASSES, IPC, 4 * WIDTH)), (pair(), pair()))


def seen(x):
    """(features, logits, statistics of both layers' inputs), written out."""
    params, running, found = variables()["params"], variables()["batch_stats"], []
    for i in range(2):
        kernel, height, width = params[f"conv{i}"]["kernel"], *x.shape[1:3]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = sum(padded[:, r : r + height, c : c + width] @ kernel[r, c]
                for r in range(3) for c in range(3)) + params[f"conv{i}"]["bias"]
        found.append((x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))))
        norm, stored = params[f"norm{i}"], running[f"norm{i}"]
        x = (x - stored["mean"]) / np.sqrt(stored["var"] + 1e-5) * norm["scale"] + norm["bias"]
        x = np.maximum(x, 0).reshape(len(x), height // 2, 2, width // 2, 2, -1).mean(axis=(2, 4))
    features = x.reshape(len(x), -1)
    return features, features @ params["head"]["kernel"] + params["head"]["bias"], found


def reference(x, *, block=CLASSES, distance="unsquared", label_weight=1.0, statistics_weight=10.0):
    total = 0.0
    for first in range(0, CLASSES, block):
        squares, rest = 0.0, []
        for c in range(first, min(first + block, CLASSES)):
            features, logits, found = seen(x[c * IPC : (c + 1) * IPC])
            squares += np.sum((features - targets().points[c]) ** 2)
            entropy = np.log(np.sum(np.exp(logits), axis=1)) - logits[:, c]
            gaps = sum(np.linalg.norm(a - b[c]) for pairs in zip(found, targets().statistics)
                       for a, b in zip(*pairs))
            rest.append(label_weight * entropy.mean() + statistics_weight * gaps)
        total += (np.sqrt(squares) if distance == "unsquared" else squares) + np.mean(rest)
    return total


@pytest.mark.parametrize("options", [
    dict(), dict(block=2, classes="vmap"), dict(distance="squared", label_weight=0.0, block=1),
    dict(statistics_weight=0.3, label_weight=2.0),
], ids=["released", "blocks", "paper", "weights"])
def test_value_and_gradient_equal_the_reference_and_its_differences(options):
    wanted = {k: v for k, v in options.items() if k != "classes"}
    with jax.enable_x64(True):
        wide = functools.partial(jax.tree.map, jnp.asarray)
        objective = barycentre_matching(NETWORK, wide(variables()), wide(targets()), **options)

        @jax.jit
        def both(x):
            synthetic = SyntheticSet(x, jnp.asarray(labels()))
            return jax.value_and_grad(
                lambda x: value_of(objective, synthetic._replace(images=x)))(x)

        value, gradient = both(jnp.asarray(images()))
        assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, reference(images(), **wanted), rtol=1e-10)
    for seed in range(3):
        along = np.random.default_rng(seed).normal(size=images().shape)
        slope = min(((reference(images() + h * along, **wanted)
                      - reference(images() - h * along, **wanted)) / (2 * h)
                     for h in (1e-5, 1e-6)), key=lambda s: abs(s - np.vdot(gradient, along)))
        np.testing.assert_allclose(np.vdot(gradient, along), slope, rtol=1e-5)


def test_nothing_is_left_where_all_agrees():
    parts = [seen(x) for x in images().reshape(CLASSES, IPC, *SHAPE)]
    same = ClassTargets(np.stack([p[0] for p in parts]), tuple(
        tuple(np.stack([p[2][i][j] for p in parts]) for j in range(2)) for i in range(2)))
    narrow = functools.partial(jax.tree.map, jnp.float32)
    objective = barycentre_matching(NETWORK, narrow(variables()), narrow(same), label_weight=0.0)
    synthetic = SyntheticSet(jnp.float32(images()), jnp.float32(labels()))
    value, metrics = jax.jit(objective.loss)(synthetic, objective.init(KEY, synthetic), (), KEY)
    assert float(value) < 1e-3 and float(metrics["cross_entropy"]) > 0


def plain(**options):
    """The objective with images as features and nothing to normalise, points at 0."""
    def norm_inputs(variables, x, train=False):
        flat = x.reshape(x.shape[0], -1)
        return Outputs(flat[:, :CLASSES], flat), ()

    network = Network(lambda key: {}, lambda *args: norm_inputs(*args)[0], "plain", norm_inputs)
    points = jnp.zeros((CLASSES, IPC, np.prod(SHAPE)))
    return barycentre_matching(network, {}, ClassTargets(points, ()), label_weight=0.0,
                               statistics_weight=0.0, **options)


def value_of(objective, synthetic):
    return objective.loss(synthetic, objective.init(KEY, synthetic), (), KEY)[0]


@pytest.mark.parametrize("distance", ["unsquared", "squared"])
def test_exactly_at_the_points_the_gradient_is_zero(distance):
    synthetic = SyntheticSet(jnp.zeros((CLASSES * IPC, *SHAPE)), jnp.float32(labels()))
    gradient = jax.grad(lambda s: value_of(plain(distance=distance), s))(synthetic)
    np.testing.assert_array_equal(gradient.images, 0)


def test_a_block_has_one_augmentation():
    brighter = Augmentation(lambda key, count: jax.random.normal(key, (count,)),
                            lambda params, x: x + params[:, None, None, None])
    objective = plain(distance="squared", augmentation=brighter, block=2)
    synthetic = SyntheticSet(jnp.zeros((CLASSES * IPC, *SHAPE)), jnp.float32(labels()))
    # The derivative of |0 + shift|^2 in each pixel is twice the shift.
    shifts = jax.grad(lambda s: value_of(objective, s))(synthetic).images[:, 0, 0, 0]
    assert len(set(np.asarray(shifts[: 2 * IPC]).tolist())) == 1
    assert len(set(np.asarray(shifts).tolist())) == 2


def test_it_needs_no_batch_and_embeds_by_its_network():
    objective = plain(augmentation=random_roll(SHAPE, most=2))
    state = objective.init(KEY, None)
    assert objective.sample(None, state, KEY) == ()
    assert objective.advance(None, state, (), KEY) is state
    assert objective.embed(state, jnp.ones((5, *SHAPE)), KEY).shape == (5, 128)


@pytest.mark.parametrize("change,name", [
    (dict(distance="squares"), "distance"), (dict(block=0), "block"),
    (dict(label_weight=-1.0), "label_weight"),
    (dict(statistics_weight=float("nan")), "statistics_weight"),
])
def test_wrong_settings_are_named(change, name):
    with pytest.raises(ConfigError, match=name):
        barycentre_matching(NETWORK, {}, targets(), **change)


def test_a_network_without_statistics_and_a_set_of_another_size_are_refused():
    bare = targets()._replace(statistics=())
    with pytest.raises(ConfigError, match="batch"):
        barycentre_matching(nets.convnet(SPEC, depth=1, width=2), {}, bare)
    with pytest.raises(ConfigError, match="7 images"):
        value_of(plain(), SyntheticSet(jnp.zeros((7, *SHAPE)), jnp.zeros((7, 3))))
