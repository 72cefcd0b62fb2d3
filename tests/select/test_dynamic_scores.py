"""Scores of recorded arrays against slow loops, and what is recorded of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.select.dynamic_scores import SCORES, check_epochs, first_epochs, of_dynamics
from dd_jax.select.dynamics import Dynamics, measured
from dd_jax.types import Outputs

S, E, N = 3, 5, 40


def recorded():
    rng = np.random.default_rng(0)
    found = {name: np.float32(rng.uniform(0.01, 2, (S, E, N))) for name in Dynamics._fields}
    found["correct"] = rng.uniform(size=(S, E, N)) < 0.6
    found["correct"][:, :, 3] = False  # never learned
    found["correct"][:, :, 4] = True
    return Dynamics(**found)


def slow(score, seen, i):
    """One image's score, with loops in float64."""
    p = [[np.exp(-float(seen.loss[s, e, i])) for e in range(E)] for s in range(S)]
    last = {"el2n": seen.error, "grand": seen.gradient, "margin": -seen.margin,
            "entropy": seen.entropy, "least_confidence": 1 - seen.largest}
    if score in last:
        return np.mean([float(last[score][s, E - 1, i]) for s in range(S)])
    if score == "forgetting":
        events = []
        for s in range(S):
            right = [bool(seen.correct[s, e, i]) for e in range(E)]
            count = sum(a and not b for a, b in zip(right, right[1:]))
            events.append(count if any(right) else E)
        return np.mean(events)
    if score == "confidence":
        return 1 - np.mean(p)
    if score == "variability":
        return np.mean([np.sqrt(np.mean([(x - np.mean(row)) ** 2 for x in row])) for row in p])
    return 1 - np.mean([[bool(seen.correct[s, e, i]) for e in range(E)] for s in range(S)])


@pytest.mark.parametrize("score", SCORES)
def test_equals_a_slow_reference(score):
    seen = recorded()
    found = of_dynamics(score).score(None, {"dynamics": seen}, None)
    wanted = [slow(score, seen, i) for i in range(N)]
    assert found.dtype == np.float32
    ties = {"forgetting": 1e-3, "correctness": 1e-3 / (S * E)}.get(score, 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 + ties)
    if ties:  # which never change the order of the counts
        for a in range(N):
            assert all(found[a] > found[b] for b in range(N) if wanted[a] > wanted[b] + 1e-9)


def test_never_learned_is_forgotten_most_and_never_forgotten_least():
    found = of_dynamics("forgetting").score(None, {"dynamics": recorded()}, None)
    assert found.argmax() == 3 and found.argmin() == 4


def test_what_is_recorded_of_a_batch():
    rng = np.random.default_rng(1)
    logits, features = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    labels = rng.integers(0, 4, 6)
    found = measured(Outputs(jnp.float32(logits), jnp.float32(features)), jnp.int32(labels))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ordered = np.sort(p, axis=1)
    wanted = dict(
        loss=-np.log(p[np.arange(6), labels]), correct=p.argmax(axis=1) == labels,
        largest=ordered[:, -1], margin=ordered[:, -1] - ordered[:, -2],
        entropy=-(p * np.log(p)).sum(axis=1),
        error=np.linalg.norm(p - np.eye(4)[labels], axis=1))

    def loss(layer, feature, label):
        weights, bias = layer
        return -jax.nn.log_softmax(feature @ weights + bias)[label]

    layer = jnp.float32(rng.normal(size=(3, 4))), jnp.float32(rng.normal(size=4))
    seen = measured(Outputs(jnp.float32(features) @ layer[0] + layer[1], jnp.float32(features)),
                    jnp.int32(labels))
    for i in range(6):  # the closed form is the norm of the last layer's gradient
        gradient = jax.grad(loss)(layer, jnp.float32(features[i]), labels[i])
        size = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in gradient))
        np.testing.assert_allclose(seen.gradient[i], size, rtol=1e-5)
    for name, value in wanted.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-5, atol=1e-6)


def test_of_the_first_epochs():
    seen = recorded()
    early = of_dynamics("el2n", until=2).score(None, {"dynamics": seen}, None)
    np.testing.assert_allclose(early, seen.error[:, 1].mean(axis=0), rtol=1e-6)
    assert first_epochs(seen, None) is seen
    for until, told in ((0, "until is 0"), (E + 1, f"until is {E + 1}, and {E} epochs")):
        with pytest.raises(ConfigError, match=told):
            of_dynamics("el2n", until=until).score(None, {"dynamics": seen}, None)
    with pytest.raises(ConfigError, match="forgetting of 1 epoch.*at least 2"):
        check_epochs("forgetting", 1)
    with pytest.raises(ConfigError, match="unknown order 'topp'"):
        of_dynamics("el2n", order="topp")
