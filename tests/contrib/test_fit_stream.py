"""Ridge regression in one pass over rows against the one on all of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.contrib import fit_stream
from dd_jax.errors import ConfigError
from dd_jax.solvers import MODES, fit_features


def _problem(n=12, p=5, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)), rng.normal(size=(n, k))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk", [5, 12, 100])
def test_stream_equals_one_fit(mode, chunk):
    f, y = (jnp.asarray(a, jnp.float32) for a in _problem())
    whole = fit_features(f, y, ridge=1e-2, mode=mode)
    fit = jax.jit(lambda f, y: fit_stream(lambda rows: (f[rows], y[rows]), 12, ridge=1e-2,
                                          mode=mode, chunk=chunk))(f, y)
    assert fit.weights.dtype == jnp.float32
    np.testing.assert_allclose(fit.weights, whole.weights, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(fit.info.ridge, whole.info.ridge, rtol=1e-6)


def _take(rows):
    return jnp.ones((len(rows), 3)), jnp.ones((len(rows), 2))


@pytest.mark.parametrize("call, message", [
    (lambda: fit_stream(_take, 0), "count is 0"),
    (lambda: fit_stream(_take, 4, chunk=0), "chunk is 0"),
    (lambda: fit_stream(_take, 4, ridge=-1.0), "ridge is -1.0"),
    (lambda: fit_stream(lambda r: (jnp.ones((3, 2)), jnp.ones((4, 2))), 4), "features has shape"),
], ids=range(4))
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
