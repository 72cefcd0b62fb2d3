"""Starts that experts choose, and labels that are kept as they say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import dd_jax as dd
from dd_jax.data import from_arrays
from dd_jax.objectives import Segments
from dd_jax.synthetic import pixels
from dd_jax.train import expert_starts


def linear():
    """A set of noise, a linear network, and three experts that are right by chance."""
    rng = np.random.default_rng(0)
    data = from_arrays(rng.integers(0, 256, (80, 8, 8, 1), np.uint8), np.arange(80) % 2)
    mean = 0.5 * np.ones(data.spec.shape, np.float32)

    def apply(variables, images, train=False):
        scores = (images - mean).reshape(images.shape[0], -1) @ variables["params"]["w"]
        return dd.types.Outputs(scores, scores)

    class Experts:
        experts, epochs, parameters = (0, 1, 2), 3, 128
        rows = np.asarray(rng.normal(size=(3, 4, 128)), np.float32)

        def read(self, expert, epoch):
            return self.rows[expert, epoch]

    network = dd.types.Network(lambda key: {"params": {"w": jnp.zeros((64, 2))}}, apply)
    logits = [np.asarray((np.asarray(data.images) / 255.0 - 0.5).reshape(80, 64)
                         @ w.reshape(64, 2)) for w in Experts.rows[:, -1]]
    return data, network, Segments(Experts(), 2), np.stack(logits)


def rows_of(images, data):
    gaps = np.abs(np.asarray(images)[:, None] - np.asarray(data.images) / 255.0)
    assert gaps.max(axis=(2, 3, 4)).min(axis=1).max() < 1e-6  # real images
    return gaps.sum(axis=(2, 3, 4)).argmin(axis=1)


def test_datm_starts_from_what_an_expert_knows_with_what_all_say_who_know_it():
    data, network, segments, logits = linear()
    start = jax.jit(expert_starts.classified_start(
        segments, network, normaliser=dd.data.identity(data.spec.shape), ipc=4))
    chosen = set()
    for seed in range(4):
        synthetic = start(data, jax.random.key(seed))
        rows = rows_of(synthetic.images, data)
        labels = np.asarray(data.labels)[rows]
        np.testing.assert_array_equal(labels, np.repeat([0, 1], 4))
        assert len(set(rows.tolist())) == 8
        right = logits[:, rows].argmax(axis=-1) == labels
        assert right.all(axis=1).any()
        chosen.add(tuple(rows.tolist()))
        mean = (logits[:, rows] * right[..., None]).sum(axis=0) / right.sum(axis=0)[:, None]
        wanted = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(synthetic.labels, wanted, rtol=1e-4, atol=1e-6)
    assert len(chosen) == 4


def test_datm_fills_up_with_images_that_no_expert_knows():
    """Of one expert that is always wrong: its own logits, in place of a mean of none."""
    data, network, segments, logits = linear()
    segments.trajectories.experts = (0,)
    data = from_arrays(np.asarray(data.images), 1 - logits[0].argmax(axis=1))
    start = expert_starts.classified_start(segments, network, ipc=2,
                                           normaliser=dd.data.identity(data.spec.shape))
    synthetic = jax.jit(start)(data, jax.random.key(0))
    told = logits[0, rows_of(synthetic.images, data)]
    wanted = np.exp(told) / np.exp(told).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(synthetic.labels, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.argmax(synthetic.labels, axis=1), [1, 1, 0, 0])


def test_datm_takes_no_image_of_a_small_class_twice():
    data, network, segments, logits = linear()
    few = from_arrays(np.asarray(data.images[:20]), np.asarray(data.labels[:20]))
    start = jax.jit(expert_starts.classified_start(
        segments, network, normaliser=dd.data.identity(data.spec.shape), ipc=8))
    for seed in range(3):
        rows = rows_of(start(few, jax.random.key(seed)).images, few)
        assert len(set(rows.tolist())) == 16


def test_ast_starts_from_the_middle_of_each_class_as_an_expert_sees_it():
    data, network, segments, logits = linear()
    start = expert_starts.representative_start(
        segments, network, normaliser=dd.data.identity(data.spec.shape), ipc=1)
    synthetic = jax.jit(start)(data, jax.random.key(0))
    np.testing.assert_array_equal(synthetic.labels, np.eye(2))
    wanted = []
    for seen in logits:
        own = [np.flatnonzero(np.asarray(data.labels) == c) for c in range(2)]
        far = [np.linalg.norm(seen[rows] - seen[rows].mean(axis=0), axis=1) for rows in own]
        wanted.append([int(rows[f.argmin()]) for rows, f in zip(own, far)])
    assert rows_of(synthetic.images, data).tolist() in wanted


def test_soft_labels_keep_what_experts_are_sure_of():
    labels = jnp.array([[1 - 1e-9, 1e-9], [0.3, 0.7]])
    set_ = dd.SyntheticSet(jnp.zeros((2, 2, 2, 1)), labels, jnp.float32(0.1))
    for least, kept in ((1e-12, 1e-9), (1e-3, 1e-3)):
        head = pixels(labels="soft", least=least)
        shown = head.decode(head.init(jax.random.key(0), set_), jax.random.key(0))
        np.testing.assert_allclose(shown.labels[0, 1], kept, rtol=2e-3)
        np.testing.assert_allclose(shown.labels[1], labels[1], rtol=1e-6)
        np.testing.assert_allclose(shown.learning_rate, 0.1, rtol=1e-6)
    assert head.groups(head.init(jax.random.key(0), set_))["log_learning_rate"] == "learning_rate"
