"""Objectives that take turns: whose loss it is, who advances, and turns within turns."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError
from dd_jax.objectives import alternating, class_by_class
from dd_jax.types import Batch, Objective, SyntheticSet

SHAPE, CLASSES, IPC = (2, 2, 1), 3, 2


def toy(factor, rows, embeds=False):
    """L = factor * (1 + times advanced) * sum of the images + the mean of its real labels."""

    def loss(synthetic, state, batch, key):
        own = factor * (1.0 + state["count"]) * jnp.sum(synthetic.images)
        return own + jnp.mean(batch.labels.astype(jnp.float32)), {"mine": factor}

    def advance(synthetic, state, batch, key):
        return {"count": state["count"] + 1, "seen": jnp.sum(synthetic.images)}

    def embed(state, images, key):
        return factor * images.reshape(len(images), -1)

    return Objective(
        init=lambda key, synthetic: {"count": jnp.int32(0), "seen": jnp.zeros(())},
        sample=lambda data, state, key: data.class_rows[:, :rows],
        loss=loss, advance=advance, embed=embed if embeds else None)


def a_set():
    return SyntheticSet(jnp.arange(24.0).reshape(CLASSES * IPC, *SHAPE),
                        jnp.repeat(jnp.eye(CLASSES), IPC, axis=0))


@functools.cache
def data():
    return from_arrays(np.zeros((12, *SHAPE), np.uint8), np.arange(12) % CLASSES)


def played(objective, count):
    """[(loss, metrics, slope)] and the states before and after `count` steps at a fixed set."""
    synthetic = a_set()
    state = objective.init(jax.random.key(0), synthetic)
    real = data()
    rows = objective.sample(real, state, jax.random.key(1))

    @jax.jit
    def step(state, key):
        batch = jax.tree.map(lambda r: Batch(real.images[r], real.labels[r]),
                             objective.sample(real, state, key))
        found = jax.value_and_grad(
            lambda x: objective.loss(synthetic._replace(images=x), state, batch, key),
            has_aux=True)(synthetic.images)
        return found, objective.advance(synthetic, state, batch, key)

    results, states = [], [state]
    for i in range(count):
        ((value, metrics), slope), state = step(state, jax.random.key(i))
        results.append((float(value), metrics, np.asarray(slope)))
        states.append(state)
    return results, states, rows


def test_each_has_its_steps_and_only_it_advances():
    steps, factors = (2, 1, 3), (1.0, 10.0, 100.0)
    objective = alternating([toy(f, rows) for f, rows in zip(factors, (1, 2, 3))], list(steps))
    results, states, rows = played(objective, 13)
    assert [r.shape for r in rows] == [(CLASSES, 1), (CLASSES, 2), (CLASSES, 3)]
    order = [i for i, n in enumerate(steps) for _ in range(n)]
    counts, total = [0, 0, 0], float(np.arange(24).sum())
    for t, (value, metrics, slope) in enumerate(results):
        part = order[t % sum(steps)]
        assert int(metrics["part"]) == part and int(states[t].step) == t % sum(steps)
        rate = factors[part] * (1 + counts[part])
        np.testing.assert_allclose(value, rate * total + 1.0, rtol=1e-6)  # labels 0, 1, 2
        np.testing.assert_allclose(slope, rate, rtol=1e-6)
        counts[part] += 1
        assert [int(s["count"]) for s in states[t + 1].parts] == counts
        assert jax.tree.map(lambda x: (x.shape, x.dtype), states[t + 1]) == jax.tree.map(
            lambda x: (x.shape, x.dtype), states[t])


def test_turns_of_classes_within_turns_of_objectives():
    nested = alternating([class_by_class(toy(1.0, 1)), class_by_class(toy(10.0, 2))],
                         [CLASSES, CLASSES])
    results, states, _ = played(nested, 4 * CLASSES)
    sums = np.arange(24.0).reshape(CLASSES, -1).sum(axis=1)
    for t, (value, _, slope) in enumerate(results):
        c, part, done = t % CLASSES, t // CLASSES % 2, t // (2 * CLASSES)
        rate = (1.0, 10.0)[part] * (1 + done)
        np.testing.assert_allclose(value, rate * sums[c] + c, rtol=1e-6)  # labels of class c
        np.testing.assert_array_equal(
            slope.reshape(CLASSES, -1), rate * (np.arange(CLASSES) == c)[:, None] * np.ones(8))
        first, second = states[t + 1].parts
        after = t + 1
        assert int(first.inner["count"]) == (after + CLASSES) // (2 * CLASSES)
        assert int(second.inner["count"]) == after // (2 * CLASSES)
    assert float(states[CLASSES].parts[0].inner["seen"]) == sums.sum()  # of the whole set
    assert float(states[CLASSES].parts[1].inner["seen"]) == 0.0


def test_it_embeds_as_the_first_part_that_can():
    images = jnp.ones((2, *SHAPE))
    objective = alternating([toy(1.0, 1), toy(2.0, 1, embeds=True), toy(3.0, 1, embeds=True)],
                            [1, 1, 1])
    state = objective.init(jax.random.key(0), a_set())
    np.testing.assert_array_equal(objective.embed(state, images, jax.random.key(0)), 2.0)
    assert alternating([toy(1.0, 1)] * 2, [1, 1]).embed is None


@pytest.mark.parametrize(("count", "steps", "said"), [
    (1, [2], "1 objectives"), (2, [1], "1 counts"), (2, [1, 2, 3], "3 counts"),
    (2, [1, 0], "is 0"), (2, [1, 1.5], "is 1.5"), (2, [True, 1], "is True"),
])
def test_counts_that_cannot_be_are_refused(count, steps, said):
    with pytest.raises(ConfigError, match=said):
        alternating([toy(1.0, 1)] * count, steps)
