"""Curricula of real images: rounds, what joins in one, and how their networks are trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.data import standardise
from dd_jax.errors import ConfigError
from dd_jax.select.curriculum import (
    NONE,
    Filter,
    batch_size_of,
    easiest,
    in_model_space,
    round_sizes,
    warmed_up,
)
from dd_jax.types import Augmentation
from tests.laws import members

KEY = jax.random.key(0)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 40])
@pytest.mark.parametrize("rounds", [1, 2, 3, 5])
def test_rounds_are_even_and_the_first_take_what_is_over(count, rounds):
    sizes = round_sizes(count, rounds)
    assert sum(sizes) == count and len(sizes) == min(count, rounds)
    assert sizes == sorted(sizes, reverse=True) and (not sizes or sizes[0] - sizes[-1] <= 1)


def test_no_round():
    with pytest.raises(ConfigError, match="rounds is 0"):
        round_sizes(3, 0)


def test_the_easiest_of_each_class_join_as_by_a_plain_loop():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    able, hard = rng.uniform(size=60) < 0.4, rng.integers(0, 5, 60).astype(float)
    able[labels == 3] = False
    able[np.flatnonzero(labels == 3)[:2]] = True
    found = easiest(able, hard, [np.flatnonzero(labels == label) for label in range(4)], 4)
    for label in range(4):
        rows = [row for row in range(60) if able[row] and labels[row] == label]
        wanted = []
        while rows and len(wanted) < 4:
            best = rows[0]
            for row in rows:
                if hard[row] < hard[best]:
                    best = row
            rows.remove(best)
            wanted.append(best)
        assert found[label].tolist() == wanted + [NONE] * (4 - len(wanted))
    assert (found[3] == NONE).sum() == 2 and found.dtype == np.int32


def test_batches_are_those_of_the_published_tables():
    """Images of the set by class: CIFAR-10 has 5,000 real ones, CIFAR-100 has 500."""
    for classes, real, table in ((10, 5000, {250: 32, 500: 64, 1000: 128, 1500: 128}),
                                 (100, 500, {25: 32, 50: 64, 100: 128, 150: 128})):
        for each, size in table.items():
            assert batch_size_of(each * classes, real * classes) == size


def test_the_rate_rises_for_some_epochs_and_falls_to_nothing():
    def rate(step, optimizer):
        """Of a step, from the update of a gradient of 1 without momentum so far."""
        params = jnp.zeros(())
        state = optimizer.init(params)
        for leaf_step in range(step + 1):
            gradient = jnp.where(leaf_step == step, 1.0, 0.0)
            update, state = optimizer.update(gradient, state, params)
        return -float(update)

    optimizer = warmed_up(0.2, 0.0, 2)(20, 3)
    found = [rate(step, optimizer) for step in range(20)]
    rise = [0.002 + (0.2 - 0.002) * step / 6 for step in range(6)]
    fall = [0.1 * (1 + np.cos(np.pi * step / 14)) for step in range(14)]
    np.testing.assert_allclose(found, rise + fall, rtol=1e-4, atol=1e-7)


def filters(**changes):
    usual = dict(network=nets.convnet(members.SPEC, depth=1, width=2),
                 optimizer=warmed_up(0.1, 1e-4, 1), epochs=3, batch_size=lambda images: 8)
    return Filter(**{**usual, **changes})


def test_images_on_the_host_train_the_same_network():
    toy = members.toy_data()
    images = in_model_space(toy, np.arange(20), standardise(toy))
    labels, by = np.asarray(toy.labels)[:20], filters()
    teacher = by.network.init(jax.random.key(5))
    for one in (by, by._replace(temperature=4.0)):
        here = one.train(images, labels, 2, teacher, KEY)
        there = one.train(np.asarray(images), labels, 2, teacher, KEY)
        for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_with_a_temperature_the_teacher_is_learned_and_labels_are_not():
    toy, by = members.toy_data(), filters(epochs=60)
    images = in_model_space(toy, np.arange(64), standardise(toy))
    labels = np.asarray(toy.labels)
    teacher = by.train(images, 1 - labels, 2, None, KEY)  # it says the other class
    for temperature, wanted in ((2.0, 1 - labels), (None, labels)):
        found = by._replace(temperature=temperature).train(images, labels, 2, teacher, KEY)
        said = by.network.apply(found, images).logits.argmax(axis=1)
        assert np.mean(np.asarray(said) == wanted) > 0.9


def test_views_reach_the_training():
    seen = []

    def apply(params, images):
        seen.append(images.shape)
        return jnp.zeros_like(images)

    blind = Augmentation(lambda key, count: jnp.zeros((count,)), apply)
    toy = members.toy_data()
    images = in_model_space(toy, np.arange(8), standardise(toy))
    filters(augmentation=blind).train(images, np.asarray(toy.labels)[:8], 2, None, KEY)
    assert seen == [(8, 8, 8, 1)]
