"""Transfer: pre-training on representations, linear probe, fine-tuning, and the baselines."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax.data import (
    denormalise,
    from_arrays,
    gather,
    normalise,
    rows_uniform,
    split_of,
    standardise,
)
from dd_jax.errors import ConfigError, SetFileError
from dd_jax.evaluate import protocol, transfer_steps
from dd_jax.evaluate.transfer import evaluate_transfer, evaluate_transfer_random
from dd_jax.evaluate.transfer_steps import (
    TransferBudget,
    backbone,
    classifier,
    linear_probe,
    pretrain,
    trained_probe,
    with_new_head,
)
from dd_jax.types import SyntheticSet
from tests.laws import members

MLP = protocol("tiny", network="mlp", depth=2, width=8, learning_rate=0.1, weight_decay=1e-3,
               schedule="constant", epochs=60, batch_size=16)
BUDGET = TransferBudget(probe_steps=60, probe_batch_size=16, tune_steps=24, tune_batch_size=16,
                        tune_rate=0.1, tune_padding=0, seeds=2)  # where the square is, is all


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


def test_the_probe_is_sgd_with_momentum_at_the_rate_of_a_cosine():
    """Three steps on whole batches, by optax and by hand."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)).astype(np.float32), rng.integers(0, 3, 20)
    budget = TransferBudget(probe_steps=3, probe_batch_size=99, probe_rate=0.5)
    key, network = jax.random.key(0), classifier(5, 3)
    found = trained_probe(network, jnp.asarray(x), jnp.asarray(y), budget=budget, key=key)
    head = network.init(jax.random.fold_in(key, 2000))

    def loss(head):
        logits = network.apply(head, jnp.asarray(x)).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    sgd = optax.sgd(optax.cosine_decay_schedule(0.5, 3), momentum=0.9)
    state, by_hand, speed = sgd.init(head), head, jax.tree.map(jnp.zeros_like, head)
    for step in range(3):
        updates, state = sgd.update(jax.grad(loss)(head), state)
        head = optax.apply_updates(head, updates)
        rate = 0.25 * (1 + np.cos(np.pi * step / 3))
        speed = jax.tree.map(lambda v, g: 0.9 * v + g, speed, jax.grad(loss)(by_hand))
        by_hand = jax.tree.map(lambda p, v, rate=rate: p - rate * v, by_hand, speed)
    for ours, theirs, mine in zip(*(jax.tree.leaves(t) for t in (found, head, by_hand))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours, mine, rtol=1e-5, atol=1e-6)


def test_the_probe_s_accuracy_is_that_of_its_largest_logits():
    rng = np.random.default_rng(1)
    x, y = (jnp.asarray(a) for a in (rng.normal(size=(9, 2)).astype(np.float32),
                                     rng.integers(0, 3, 9)))
    budget, key = TransferBudget(probe_steps=2, probe_batch_size=4), jax.random.key(3)
    head = trained_probe(classifier(2, 3), x, y, budget=budget, key=key)["params"]
    right = np.argmax(x @ head["kernel"] + head["bias"], axis=1) == y
    assert float(linear_probe(x, y, x, y, num_classes=3, budget=budget, key=key)) == right.mean()


@pytest.mark.parametrize("name,flip,mirrored", [
    ("cifar10", None, True), ("svhn", None, False), ("mnist", None, False), ("svhn", True, True),
])
def test_images_are_cropped_in_black_and_mirrored_while_fine_tuning(name, flip, mirrored):
    """Paddings of 4 pixels; digits are not mirrored."""
    images = np.zeros((2, 12, 12, 1), np.uint8)
    images[:, 4:8, 4:7] = 200  # a block left of the middle, which no crop cuts
    part = from_arrays(images, [0, 1], name=name)
    normaliser = standardise(part)
    views = transfer_steps._crops(part.spec, normaliser, TransferBudget(tune_flip=flip))
    many = jnp.broadcast_to(normalise(normaliser, images[0]), (128, 12, 12, 1))
    seen = jax.jit(views.apply)(views.draw(jax.random.key(0), 128), many)
    pixels = np.asarray(denormalise(normaliser, seen))[..., 0]
    levels = np.unique(np.round(255 * pixels))
    assert levels.tolist() == [0, 200]
    tops = {int(np.argmax(p.max(1) > 0.5)) for p in pixels}
    assert tops == set(range(9))
    assert len(views.draw(jax.random.key(0), 1)) == 1 + mirrored


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
    for change in ({"seeds": 0}, {"probe_steps": -1}, {"tune_rate": float("nan")},
                   {"probe_momentum": -0.1}, {"tune_padding": 0.5}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            TransferBudget(**change)
