"""The iterative solvers against a dense solve, and the learning rate search."""

from __future__ import annotations

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.solvers.quadratic import adam_quadratic, conjugate_gradients, falls, probe_rate


def problem(seed=0, n=12):
    """H [n, n] with condition about 10, g as a tree, and how trees become vectors."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    h = jnp.asarray((q * np.linspace(0.5, 5.0, n)) @ q.T)
    g = {name: jnp.asarray(rng.normal(size=s)) for name, s in (("a", n // 2), ("b", (n // 6, 3)))}
    flat, back = jax.flatten_util.ravel_pytree(g)
    return h, g, flat, lambda tree: back(h @ jax.flatten_util.ravel_pytree(tree)[0])


def flat(tree):
    return np.asarray(jax.flatten_util.ravel_pytree(tree)[0])


def test_conjugate_gradients_equal_a_dense_solve():
    with jax.enable_x64(True):
        h, g, vector, matvec = problem()
        out = jax.jit(lambda g: conjugate_gradients(matvec, g, steps=20))(g)
        expected = np.linalg.solve(h, vector)
        np.testing.assert_allclose(flat(out.solution), expected, atol=1e-12)
        assert out.residual < 1e-11 and out.monitor.shape == (20,)
        # Twice the quadratic, at its minimum, and exactly there after the solution is reached.
        np.testing.assert_allclose(out.monitor[-1], -vector @ expected, rtol=1e-12)


def test_conjugate_gradients_report_the_true_residual_when_cut_short():
    with jax.enable_x64(True):
        h, g, vector, matvec = problem()
        out = conjugate_gradients(matvec, g, steps=5)
        v = flat(out.solution)
        assert out.residual > 1e-4
        np.testing.assert_allclose(out.residual, np.linalg.norm(h @ v - vector), rtol=1e-9)
        np.testing.assert_allclose(out.monitor[-1], v @ (h @ v - 2 * vector), rtol=1e-9)
        assert falls(out.monitor)


def test_steps_beyond_the_solution_do_not_spoil_it_in_float32():
    """Small numbers underflow once the residual is tiny, and some last iterates are far off."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(40, 50, 5)) * np.sqrt(2.0)
    h = jnp.asarray(1e-7 * (u @ u.transpose(0, 2, 1) + np.eye(50)), jnp.float32)
    g = jnp.asarray(1e-7 * rng.normal(size=(40, 50)), jnp.float32)
    out = jax.jit(jax.vmap(lambda h, g: conjugate_gradients(lambda v: h @ v, g, steps=200)))(h, g)
    away = out.monitor[:, -1] > 0.99 * jnp.min(out.monitor, axis=1)
    assert jnp.any(away)  # the case at hand exists
    error = jnp.einsum("bij,bj->bi", h, out.solution) - g
    assert jnp.max(jnp.linalg.norm(error, axis=1) / jnp.linalg.norm(g, axis=1)) < 1e-4


def test_a_residual_that_rises_at_first_is_no_reason_to_stay_at_the_start():
    rng = np.random.default_rng(0)
    u = (rng.normal(size=(50, 5)) * 100.0).astype(np.float32)
    g = jnp.asarray(rng.normal(size=50), jnp.float32)
    out = conjugate_gradients(lambda v: u @ (u.T @ v) + v, g, steps=3)
    assert out.residual > jnp.linalg.norm(g)
    v = out.solution
    np.testing.assert_allclose(v @ (u @ (u.T @ v) + v - 2 * g), jnp.min(out.monitor), rtol=1e-2)
    assert jnp.min(out.monitor) < 0


def test_zero_right_hand_side_gives_zero():
    zero = jnp.zeros(3)
    for out in (conjugate_gradients(lambda v: 2 * v, zero, steps=3),
                adam_quadratic(lambda v: 2 * v, zero, steps=3, rate=0.1)):
        np.testing.assert_array_equal(out.solution, 0)
        assert out.residual == 0


def test_adam_equals_a_plain_loop():
    with jax.enable_x64(True):
        h, g, vector, matvec = problem()
        out = jax.jit(lambda g, r: adam_quadratic(matvec, g, steps=15, rate=r))(g, 0.02)
        v, m, s, monitor = np.zeros(12), 0.0, 0.0, []
        for k in range(1, 16):
            gradient = h @ v - vector
            m, s = 0.9 * m + 0.1 * gradient, 0.999 * s + 0.001 * gradient**2
            v = v - 0.02 * (m / (1 - 0.9**k)) / (np.sqrt(s / (1 - 0.999**k)) + 1e-8)
            monitor.append(v @ (h @ v - 2 * vector))
        np.testing.assert_allclose(flat(out.solution), v, rtol=1e-10)
        np.testing.assert_allclose(out.monitor, monitor, rtol=1e-10)
        np.testing.assert_allclose(out.residual, np.linalg.norm(h @ v - vector), rtol=1e-10)


def test_probed_rate_is_the_last_falling_one_lowered():
    h, g, _, matvec = problem()

    def run(rate):
        return adam_quadratic(matvec, g, steps=20, rate=rate).monitor

    rate = float(jax.jit(lambda: probe_rate(run, 1e-3))())
    first_bad = rate / 0.7 / 1.2  # raised once more after it failed, then lowered
    assert not falls(run(jnp.float32(first_bad))) and falls(run(jnp.float32(first_bad / 1.2001)))
    assert falls(run(jnp.float32(rate)))


def test_probe_is_bounded_and_stops_at_nonsense():
    always = probe_rate(lambda r: -r * jnp.arange(1.0, 4.0), 1.0, up=2.0, down=0.5, max_tries=5)
    assert always == 16.0
    np.testing.assert_allclose(probe_rate(lambda r: jnp.full((3,), jnp.nan), 1.0), 0.84, rtol=1e-6)


@pytest.mark.parametrize("call", [
    lambda: conjugate_gradients(lambda v: v, jnp.ones(2), steps=0),
    lambda: adam_quadratic(lambda v: v, jnp.ones(2), steps=0, rate=0.1),
    lambda: probe_rate(lambda r: r[None], 0.0),
    lambda: probe_rate(lambda r: r[None], 1.0, up=0.9),
    lambda: probe_rate(lambda r: r[None], 1.0, down=2.0),
    lambda: probe_rate(lambda r: r[None], 1.0, max_tries=0),
], ids=["cg", "adam", "start", "up", "down", "tries"])
def test_bad_settings_are_refused(call):
    with pytest.raises(ConfigError):
        call()
