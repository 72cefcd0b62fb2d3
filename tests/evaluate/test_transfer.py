"""Transfer: pre-training on representations, linear probe, fine-tuning, and the baselines."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.data import from_arrays, gather, normalise, rows_uniform, split_of, standardise
from dd_jax.errors import ConfigError, SetFileError
from dd_jax.evaluate import protocol
from dd_jax.evaluate.transfer import evaluate_transfer, evaluate_transfer_random
from dd_jax.evaluate.transfer_steps import (
    TransferBudget,
    backbone,
    linear_probe,
    pretrain,
    with_new_head,
)
from dd_jax.types import SyntheticSet
from tests.laws import members

MLP = protocol("tiny", network="mlp", depth=2, width=8, learning_rate=0.1, weight_decay=1e-3,
               schedule="constant", epochs=60, batch_size=16)
BUDGET = TransferBudget(probe_steps=60, probe_batch_size=16, tune_steps=24, tune_batch_size=16,
                        tune_rate=0.1, seeds=2)


@pytest.fixture(scope="module")
def target():
    """Three classes by where a bright square is: 60 images to train on, 30 to test."""
    rng = np.random.default_rng(0)

    def part(count):
        labels = np.arange(count) % 3
        images = rng.integers(0, 120, (count, *members.SHAPE))
        for i, label in enumerate(labels):
            images[i, 2 * label : 2 * label + 3, 2:6] += 90
        return from_arrays(images.astype(np.uint8), labels, name="squares", num_classes=3)

    return split_of(part(60), part(30))


@pytest.fixture(scope="module")
def normaliser(target):
    return standardise(target.train)


def teacher(images):
    """Representations from which the class can be read: the mean of each row."""
    return jnp.mean(images, axis=(2, 3))


@pytest.fixture(scope="module")
def synthetic(target, normaliser):
    images = normalise(normaliser, target.train.images[:12])
    return SyntheticSet(images, teacher(images))


@pytest.fixture(scope="module")
def trained(target, normaliser, synthetic):
    return evaluate_transfer(synthetic, target, normaliser=normaliser, protocol=MLP,
                             key=jax.random.key(0), budget=BUDGET)


def test_pretraining_fits_the_representations(synthetic):
    protocol = MLP.varied(network="convnet", depth=1, width=4, norm="batch")

    @jax.jit
    def error(key):
        network, variables = pretrain(protocol, *synthetic[:2], key=key)
        outputs = network.apply(variables, synthetic.images, True)
        return jnp.mean((outputs.logits - synthetic.labels) ** 2)

    # Representations vary by about 0.3 around their mean.
    assert float(error(jax.random.key(0))) < 0.5 * float(jnp.var(synthetic.labels, axis=0).mean())


def test_probe_equals_numpy_descent():
    """With whole batches it ends where a softmax regression in NumPy does, from another start."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)).astype(np.float32), rng.integers(0, 3, 20)
    test = rng.normal(size=(200, 5)).astype(np.float32)
    budget = TransferBudget(probe_steps=4000, probe_batch_size=99, probe_rate=0.5)
    # The test labels are what NumPy's classifier says, so an equal one is always right.
    w, b = np.zeros((5, 3)), np.zeros(3)
    for _ in range(4000):
        z = x @ w + b
        p = np.exp(z - z.max(1, keepdims=True))
        p = p / p.sum(1, keepdims=True) - np.eye(3)[y]
        w, b = w - 0.5 * x.T @ p / 20, b - 0.5 * p.mean(0)
    labels = np.argmax(test @ w + b, axis=1)
    found = linear_probe(jnp.asarray(x), jnp.asarray(y), jnp.asarray(test), jnp.asarray(labels),
                         num_classes=3, budget=budget, key=jax.random.key(0))
    assert float(found) > 0.98


def test_a_new_head_keeps_the_body(synthetic):
    network = backbone(MLP, members.SHAPE, 4)
    variables = jax.jit(network.init)(jax.random.key(0))
    headed = with_new_head(network, variables, width=8, num_classes=3)
    start = headed.init(jax.random.key(1))
    outputs = headed.apply(start, synthetic.images)
    assert outputs.logits.shape == (12, 3)
    np.testing.assert_array_equal(outputs.features,
                                  network.apply(variables, synthetic.images).features)
    gradient = jax.grad(lambda v: jnp.sum(headed.apply(v, synthetic.images).logits ** 2))(start)
    assert np.any(gradient["params"]["body"]["hidden0"]["kernel"])
    assert not np.any(gradient["params"]["body"]["head"]["kernel"])


def test_both_tests_learn_and_repeat(target, normaliser, synthetic, trained):
    for result in trained:
        assert result.accuracies.shape == (2,) and result.mean > 0.6
    again = evaluate_transfer(synthetic, target, normaliser=normaliser, protocol=MLP,
                              key=jax.random.key(0), budget=BUDGET)
    np.testing.assert_array_equal(trained.probe.accuracies, again.probe.accuracies)
    np.testing.assert_array_equal(trained.tuned.accuracies, again.tuned.accuracies)


def test_baselines(target, normaliser, trained):
    short = dataclasses.replace(BUDGET, tune_steps=0)
    options = dict(normaliser=normaliser, protocol=MLP, key=jax.random.key(0), budget=short)
    untrained = evaluate_transfer(None, target, **options)
    assert untrained.tuned is None and len(untrained.probe.accuracies) == 2
    assert untrained.probe.mean != trained.probe.mean

    def draw(data, key):
        images = normalise(normaliser, gather(data, rows_uniform(data, key, 12))[0])
        return SyntheticSet(images, teacher(images))

    random = evaluate_transfer_random(target.train, draw, target, **options)
    assert random.tuned is None and random.probe.mean > 0.5


def test_bad_targets_and_budgets_are_refused(target, normaliser, synthetic):
    options = dict(normaliser=normaliser, protocol=MLP, key=jax.random.key(0), budget=BUDGET)
    wide = synthetic._replace(images=jnp.zeros((12, 8, 9, 1)))
    with pytest.raises(SetFileError, match=r"\(8, 9, 1\)"):
        evaluate_transfer(wide, target, **options)
    host = target._replace(train=dataclasses.replace(
        target.train, images=np.asarray(target.train.images)))
    with pytest.raises(ConfigError, match="host"):
        evaluate_transfer(synthetic, host, **options)
    for change in ({"seeds": 0}, {"probe_steps": -1}, {"tune_rate": float("nan")}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            TransferBudget(**change)
