"""Sets of any shape: how they train is compared, to their networks' parameters, with plain sets."""

from __future__ import annotations

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import evaluate as ev
from dd_jax import kernels, store
from dd_jax.data import from_arrays, normalise, split_of, standardise
from dd_jax.errors import ConfigError, DataError, SetFileError
from dd_jax.evaluate.random_images import random_images
from dd_jax.evaluate.transfer_steps import pretrain
from dd_jax.labels import own_labels, stored_targets
from dd_jax.solvers import in_float64
from dd_jax.types import SyntheticSet

EVALUATE = importlib.import_module("dd_jax.evaluate.evaluate")
PROGRESSIVE = importlib.import_module("dd_jax.evaluate.progressive")
CLASSES = np.array([2, 0, 2, 1, 2, 2, 0, 2, 2, 0, 2], np.int32)  # 3, 1 and 7, in no order
COUNT, K, SHAPE = len(CLASSES), 3, (6, 6, 1)
KEY = jax.random.key(0)
MLP = ev.protocol("tiny", network="mlp", width=4, epochs=3, batch_size=16, learning_rate=0.1,
                  schedule="constant", seeds=1)


@pytest.fixture(scope="module")
def data():
    """Three classes of 9, 8 and 7 images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(K), (9, 8, 7))
    images = rng.integers(0, 120, (len(labels), *SHAPE)) + 60 * labels[:, None, None, None]
    part = from_arrays(images.astype(np.uint8), labels, name="steps", num_classes=K)
    return split_of(part, part)


@pytest.fixture(scope="module")
def plain(data):
    """A set of float images with one-hot labels."""
    pixels = np.asarray(data.train.images)[np.arange(COUNT)]
    normaliser = standardise(data.train)
    images = np.asarray(normalise(normaliser, pixels))
    return store.DistilledSet(SyntheticSet(images, np.eye(K, dtype=np.float32)[CLASSES]),
                              normaliser, "one_hot", data.train.spec)


def changed(distilled, **arrays):
    fields = {name: arrays.pop(name) for name in list(arrays)
              if name in ("label_kind", "label_store", "recipe")}
    synthetic = distilled.synthetic._replace(**arrays)
    return dataclasses.replace(distilled, synthetic=synthetic, **fields)


def rows(distilled, chosen):
    return changed(distilled, images=distilled.synthetic.images[chosen],
                   labels=distilled.synthetic.labels[chosen])


def with_store(folder, distilled, stored, kind="probabilities", name="a"):
    beside = store.write_label_store(folder / name, stored, distilled, kind=kind, dtype="float32")
    return changed(distilled, label_store=beside)


def soft(epochs):
    drawn = np.random.default_rng(1).random((epochs, COUNT, K)).astype(np.float32) + 0.1
    return drawn / drawn.sum(-1, keepdims=True)


@pytest.fixture
def head(data, monkeypatch):
    """(a set, ...) -> the weights of the last layer of the network that was trained on it."""
    ends = []
    for module in (EVALUATE, PROGRESSIVE):
        def watched(network, protocol, train=module.train, **options):
            variables = train(network, protocol, **options)
            jax.debug.callback(lambda found: ends.append(np.asarray(found)),
                               variables["params"]["head"]["kernel"])
            return variables

        monkeypatch.setattr(module, "train", watched)

    def trained(distilled, protocol=MLP, **options):
        ev.evaluate_progressive(distilled, data.test, protocol=protocol, key=KEY, **options)
        jax.effects_barrier()
        return ends[-1]

    yield trained
    EVALUATE._train_and_test.clear_cache()


def close(ours, theirs):
    return np.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_pixels_class_numbers_and_weights(plain, data, head):
    usual = head(plain)
    pixels = np.asarray(data.train.images)[:COUNT]
    assert close(head(changed(plain, images=pixels, labels=CLASSES, label_kind="classes")), usual)
    by_name = MLP.varied(loss="integer_cross_entropy")
    assert close(head(changed(plain, labels=CLASSES, label_kind="classes"), by_name), usual)
    assert close(head(changed(plain, weights=np.full(COUNT, 2, np.float32))), usual)
    chosen = np.array([0, 1, 3, 4, 9])
    weights = np.isin(np.arange(COUNT), chosen).astype(np.float32)
    half = head(changed(plain, weights=weights))
    assert close(half, head(rows(plain, chosen))) and not close(half, usual)


def test_a_label_store_is_what_networks_are_told(plain, head, tmp_path):
    hard, two = plain.synthetic.labels[None], soft(2)
    nonsense = changed(plain, labels=np.roll(plain.synthetic.labels, 1, axis=0))
    usual, told = head(plain), stored_targets(two, by_epoch=True)
    assert close(head(with_store(tmp_path, nonsense, hard)), usual)
    replayed = with_store(tmp_path, nonsense, two, name="b")
    assert close(head(replayed), head(plain, supervision=told))
    assert not close(head(replayed), head(plain, supervision=stored_targets(two[:1],
                                                                            by_epoch=True)))
    assert close(head(replayed, supervision=own_labels()), head(nonsense))
    logits = with_store(tmp_path, plain, two, kind="logits", name="c")  # by squared error
    assert close(head(logits), head(plain, supervision=ev.supervision_of(logits, MLP)))
    assert not close(head(logits), head(replayed))


def test_a_set_in_stages_keeps_weights_and_rows_of_its_store(plain, data, head, tmp_path):
    """Two stages of one image a class each; the first stage does not see the second's rows."""
    staged = rows(plain, np.array([1, 6, 3, 3, 0, 2]))
    numbers = staged.synthetic.labels.argmax(1).astype(np.int32)
    usual = head(staged, stages=2)
    pixels = np.asarray(data.train.images)[[1, 6, 3, 3, 0, 2]]
    free = changed(staged, images=pixels, labels=numbers, label_kind="classes")
    assert close(head(free, stages=2), usual)
    hard = np.eye(K, dtype=np.float32)[numbers][None]
    nonsense = changed(staged, labels=np.roll(staged.synthetic.labels, 1, axis=0))
    assert close(head(with_store(tmp_path, nonsense, hard), stages=2), usual)
    assert close(head(nonsense, stages=2, supervision=stored_targets(hard[0])), usual)
    weights = np.array([1, 0] * 3, np.float32)
    twice = changed(rows(staged, np.array([0, 0, 2, 2, 4, 4])))
    assert close(head(changed(staged, weights=weights), stages=2), head(twice, stages=2))


@pytest.mark.parametrize("arrays,found", [
    ({}, (3, 1, 7)), ({"labels": CLASSES, "label_kind": "classes"}, (3, 1, 7)),
    ({"labels": np.eye(K)[CLASSES] - 1 / K, "label_kind": "centred"}, (3, 1, 7)),
    ({"labels": soft(1)[0], "label_kind": "probabilities"}, COUNT / K),
    ({"labels": np.ones((COUNT, 5)), "label_kind": "representations"}, COUNT / K),
    ({"recipe": {"ipc": 2, "shown_images": COUNT}}, 2),  # shows more than it stores
    ({"labels": np.arange(COUNT, dtype=np.int32) % 2, "label_kind": "classes"}, (6, 5, 0)),
])
def test_the_budget_of_random_images(plain, data, arrays, found):
    distilled = changed(plain, **arrays)
    assert ev.budget(distilled) == pytest.approx(found)
    assert ev.has_random(distilled, data.train)


def test_random_images_of_an_unequal_set(plain, data):
    images, classes = random_images(data.train, KEY, (3, 1, 7))
    assert np.bincount(classes).tolist() == [3, 1, 7] and np.all(np.diff(classes) >= 0)
    assert len(np.unique(np.asarray(images).reshape(11, -1), axis=0)) == 11
    np.testing.assert_array_equal(random_images(data.train, KEY, (2, 2, 2))[0],
                                  random_images(data.train, KEY, 2)[0])
    assert not ev.has_random(rows(plain, np.array([3] * 9 + [0])), data.train)  # 9 of class 1
    for counts, error, said in (((9, 9, 1), DataError, "class 1 .* has 8 images.* 9"),
                                ((1, 1), ConfigError, "3 whole numbers"),
                                ((0, 0, 0), ConfigError, "3 whole numbers")):
        with pytest.raises(error, match=said):
            random_images(data.train, KEY, counts)
    common = dict(normaliser=plain.normaliser, protocol=MLP, key=KEY, seeds=2)
    assert ev.evaluate_random(data, ipc=(3, 1, 7), label_kind="classes", **common).mean >= 0
    small = changed(plain, labels=CLASSES, label_kind="classes")
    by = ev.ReadOut("fc1")
    assert len(ev.read_out_random(small, data, key=KEY, seeds=2, by=by).accuracies) == 2


@pytest.mark.parametrize("kind,options,said", [
    ("centred", {"loss": "integer_cross_entropy"}, "integer-cross-entropy but the labels are cen"),
    ("probabilities", {"loss": "integer_cross_entropy"}, "labels are probabilities"),
    ("one_hot", {"order": "classes", "batch_size": 3}, "not as many images of every class"),
    ("soft", {"order": "classes", "batch_size": 3}, "11 images, which 3 classes cannot"),
    ("one_hot", {"network": "vgg11"}, "6x6"),
])
def test_what_a_protocol_cannot_test_is_refused(plain, data, monkeypatch, kind, options, said):
    monkeypatch.setattr(EVALUATE, "_train_and_test", None)
    with pytest.raises(ConfigError, match=said):
        told = ({"labels": soft(1)[0], "label_kind": "probabilities"} if kind == "soft"
                else {"label_kind": kind})
        ev.evaluate(changed(plain, **told), data.test, key=KEY, protocol=MLP.varied(**options))


def test_label_stores_that_cannot_be_used_are_refused(plain, data, tmp_path):
    replayed = with_store(tmp_path, plain, soft(1))
    with pytest.raises(ConfigError, match="CutMix.*label store"):
        ev.evaluate(replayed, data.test, protocol=MLP.varied(cutmix=0.5), key=KEY)
    ev.evaluate(replayed, data.test, protocol=MLP.varied(cutmix=0.5), key=KEY,
                supervision=own_labels())
    (tmp_path / "a.labels.safetensors").unlink()
    with pytest.raises(SetFileError, match="a.labels.safetensors"):
        ev.evaluate(replayed, data.test, protocol=MLP, key=KEY)


@pytest.mark.filterwarnings("error:.*float64")
@pytest.mark.parametrize("mode", ["absolute", "trace_mean"])
def test_kernel_regression_weighs_errors(plain, data, mode):
    """argmin_a sum_i w_i (f(x_i) - y_i)^2 + mu a^T K a, in NumPy; pixels and class numbers too."""
    module = importlib.import_module("dd_jax.evaluate.read_out")
    weights = np.linspace(0.5, 3, COUNT).astype(np.float32)
    kernel = kernels.named("fc1")
    gram = np.asarray(kernel.gram(plain.synthetic.images), np.float64)
    ours = jax.jit(lambda images, labels, weights: module._coefficients(
        in_float64(kernel.gram)(images), labels, weights, ridge=0.1, mode=mode))(
            jnp.asarray(plain.synthetic.images), jnp.asarray(plain.synthetic.labels), weights)
    w = weights / weights.mean()
    mu = 0.1 * (1 if mode == "absolute" else np.mean(w * np.diag(gram)))
    theirs = np.linalg.solve(gram + mu * np.diag(1 / w), plain.synthetic.labels)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)

    by = ev.ReadOut("fc1", ridge=0.1, mode=mode)
    pixels = np.asarray(data.train.images)[:COUNT]
    free = changed(plain, images=pixels, labels=CLASSES, label_kind="classes", weights=weights)
    cross = np.asarray(kernel.pair(normalise(plain.normaliser, data.test.images),
                                   plain.synthetic.images))
    share = np.mean((cross @ theirs).argmax(1) == np.asarray(data.test.labels))
    assert abs(ev.read_out(free, data.test, by=by).mean - share) < 0.05


def test_pretraining_weighs_images(plain):
    chosen, images = np.array([0, 3, 5]), plain.synthetic.images
    labels = images.mean(axis=(2, 3))
    weights = np.isin(np.arange(COUNT), chosen).astype(np.float32)
    ours = pretrain(MLP, images, labels, key=KEY, weights=weights)[1]
    theirs = pretrain(MLP, images[chosen], labels[chosen], key=KEY)[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)
