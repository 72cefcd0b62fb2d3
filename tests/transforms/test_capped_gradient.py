"""Gradients that are cut at a multiple of their usual norm, and labels kept probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax.errors import ConfigError
from dd_jax.transforms.capped_gradient import capped_gradient
from dd_jax.transforms.simplex import kept_probabilities


def test_norms_are_cut_at_twice_the_average_that_they_are_part_of():
    capped, rng, average = capped_gradient(2.0, decay=0.9), np.random.default_rng(0), None
    params = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    state, update = capped.init(params), jax.jit(capped.update)
    for scale in (1.0, 1.5, 100.0, 0.0, 4.0, 0.1):
        gradient = {"a": scale * rng.normal(size=3), "b": scale * rng.normal(size=(2, 2))}
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        average = norm if average is None else 0.9 * average + 0.1 * norm
        factor = 1.0 if norm <= 2 * average else 2 * average / norm
        updates, state = update(jax.tree.map(jnp.asarray, gradient), state)
        for name, g in gradient.items():
            np.testing.assert_allclose(updates[name], factor * g, rtol=1e-5)
        np.testing.assert_allclose(state.average, average, rtol=1e-5)


def test_norms_of_one_and_eight_give_a_cap_of_nine():
    capped = capped_gradient(2.0, decay=0.5)
    state = capped.init(jnp.zeros(1))
    for norm in (1.0, 8.0):  # which lets the second pass
        update, state = capped.update(jnp.array([norm]), state)
        assert update.item() == norm
    assert 2.0 * state.average.item() == 9.0


@pytest.mark.parametrize("options", [
    dict(factor=0.0), dict(factor=np.nan), dict(factor="2"), dict(decay=1.0), dict(decay="0.9")],
    ids=str)
def test_caps_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        capped_gradient(**options)


def test_labels_stay_probabilities():
    labels = jnp.asarray([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.4, 0.3, 0.3]])
    move = jnp.asarray([[0.1, -0.4, 1.0], [-2.0, -1.0, -1.0], [0.1, 0.0, 0.1]])
    kept = optax.chain(optax.identity(), kept_probabilities())
    updates, _ = kept.update(move, kept.init(labels), labels)
    np.testing.assert_allclose(
        labels + updates, [[0.3 / 1.3, 0, 1 / 1.3], [1 / 3] * 3, np.array([0.5, 0.3, 0.4]) / 1.2],
        rtol=1e-5, atol=1e-7)
    with pytest.raises(ConfigError, match="no parameters"):
        kept.update(move, kept.init(labels))
