"""Leave-one-out errors and influence from one factor against refitting."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.contrib import leave_one_out
from dd_jax.errors import ConfigError


def _problem(n=6, p=20, k=3, seed=0):
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(n, p))
    return f @ f.T, rng.normal(size=(n, k)), f


def _mu(gram, reg, mode):
    return {"trace_mean": reg * np.trace(gram) / len(gram), "trace_sum": reg * np.trace(gram),
            "absolute": reg}[mode]


@pytest.mark.parametrize("mode", ["trace_mean", "absolute"])
def test_leave_one_out_equals_refitting(mode):
    gram, y, _ = _problem(8, 30)
    mu = _mu(gram, 1e-2, mode)
    with jax.enable_x64(True):
        scores = leave_one_out(jnp.asarray(gram), jnp.asarray(y), ridge=1e-2, mode=mode)
    full = np.linalg.solve(gram + mu * np.eye(8), y)
    for i in range(8):
        rest = np.delete(np.arange(8), i)
        alpha = np.linalg.solve(gram[np.ix_(rest, rest)] + mu * np.eye(7), y[rest])
        np.testing.assert_allclose(scores.residuals[i], y[i] - gram[i, rest] @ alpha, rtol=1e-9)
        change = full.copy()
        change[rest] -= alpha
        norm = np.sum(change * ((gram + mu * np.eye(8)) @ change))
        np.testing.assert_allclose(scores.influence[i], norm, rtol=1e-9)


def test_leave_one_out_finds_the_wrong_label():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-2, 0.3, (10, 2)), rng.normal(2, 0.3, (10, 2))])
    y = np.repeat([[1.0, -1.0], [-1.0, 1.0]], 10, axis=0)
    y[3] = -y[3]
    gram = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1))
    scores = leave_one_out(jnp.asarray(gram, jnp.float32), jnp.asarray(y, jnp.float32), ridge=1e-2)
    assert int(jnp.argmax(scores.influence)) == 3
    assert bool(jnp.all(scores.influence >= 0))


@pytest.mark.parametrize("gram, targets, options, message", [
    (np.ones((2, 3)), np.ones((2, 1)), {}, r"gram has shape \(2, 3\)"),
    (np.ones((2, 2)), np.ones((3, 1)), {}, r"targets has shape \(3, 1\), expected \[2, m\]"),
    (np.ones((2, 2)), np.ones(2), {}, r"targets has shape \(2,\)"),
    (np.ones((0, 0)), np.ones((0, 1)), {}, "at least one entry"),
    (np.eye(2, dtype=int), np.ones((2, 1)), {}, "int"),
    (np.eye(2), np.ones((2, 1)), {"ridge": -1e-3}, "-0.001"),
    (np.eye(2), np.ones((2, 1)), {"mode": "trace"}, "trace_mean"),
])
def test_wrong_input_is_refused(gram, targets, options, message):
    with pytest.raises(ConfigError, match=message):
        leave_one_out(jnp.asarray(gram), jnp.asarray(targets), **options)
