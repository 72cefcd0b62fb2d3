"""The implicit derivative against a closed form, a long unroll, and an attached gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.solvers.implicit import attach_gradient, implicit
from dd_jax.solvers.quadratic import conjugate_gradients


def by_cg(matvec, rhs):
    return conjugate_gradients(matvec, rhs, steps=40).solution


def relative(a, b):
    return float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))


def ridge_loss(omega, psi):
    x, y = psi
    return 0.5 * jnp.mean((x @ omega["w"] - y) ** 2) + 0.05 * jnp.sum(omega["w"] ** 2)


def closed_form(psi):
    x, y = psi
    n = y.size
    return {"w": jnp.linalg.solve(x.T @ x / n + 0.1 * jnp.eye(x.shape[1]), x.T @ y / n)}


def outer(omega, target):
    return jnp.sum(jnp.tanh(omega["w"] - target))


def test_gradient_equals_that_of_a_closed_form():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        psi = tuple(jnp.asarray(rng.normal(size=s)) for s in ((6, 4), (6,)))
        target = jnp.asarray(rng.normal(size=4))
        solved = implicit(ridge_loss, lambda psi, start: closed_form(psi), solve=by_cg)

        def through(psi, start):
            omega, residual = solved(psi, start)
            return outer(omega, target), residual

        start = {"w": jnp.ones(4), "step": 3}
        gradient = jax.jit(jax.grad(lambda p: through(p, start)[0]))(psi)
        expected = jax.grad(lambda p: outer(closed_form(p), target))(psi)
        for a, b in zip(gradient, expected):
            assert relative(a, b) < 1e-8
        assert through(psi, start)[1] < 1e-12
        # A start is where the solver begins, not what it depends on.
        nothing = jax.grad(lambda s: through(psi, {"w": s})[0])(jnp.ones(4))
        np.testing.assert_array_equal(nothing, 0)


def test_gradient_equals_a_long_unroll_on_a_loss_that_is_not_quadratic():
    def loss(omega, psi):
        return jnp.mean(jnp.logaddexp(0.0, -psi["y"] * (psi["x"] @ omega))) + jnp.sum(omega**2)

    def descend(psi, start):
        step = jax.grad(loss)
        return jax.lax.scan(lambda w, _: (w - 0.3 * step(w, psi), None), start, None, length=300)[0]

    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        psi = {"x": jnp.asarray(rng.normal(size=(5, 3))), "y": jnp.asarray(rng.normal(size=5))}
        solved = implicit(loss, descend, solve=by_cg)
        start = jnp.zeros(3)
        gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(3 * solved(p, start)[0]))))(psi)
        unrolled = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(3 * descend(p, start)))))(psi)
        for name in psi:
            assert relative(gradient[name], unrolled[name]) < 1e-8
        short = implicit(loss, lambda psi, start: start, solve=by_cg)
        assert short(psi, start)[1] > 1e-2  # the residual tells that nothing was minimised


def test_integer_leaves_of_psi_pass():
    def loss(omega, psi):
        return 0.5 * jnp.sum((omega - psi["x"][psi["rows"]]) ** 2)

    solved = implicit(loss, lambda psi, start: psi["x"][psi["rows"]], solve=by_cg)
    rows = jnp.array([2, 0])
    gradient = jax.grad(lambda x: jnp.sum(solved({"x": x, "rows": rows}, None)[0] ** 2))
    np.testing.assert_allclose(gradient(jnp.arange(3.0)), [0.0, 0.0, 4.0], rtol=1e-6)


def test_an_attached_gradient_is_what_grad_returns():
    tree = {"a": jnp.ones(2), "b": jnp.float32(3.0)}
    given = {"a": jnp.array([1.0, -2.0]), "b": jnp.float32(5.0)}

    def loss(tree, given):
        return 2.0 * attach_gradient(tree["b"] * 0 + 4.0, tree, given)

    value, gradient = jax.value_and_grad(loss)(tree, given)
    assert value == 8.0
    np.testing.assert_array_equal(gradient["a"], [2.0, -4.0])
    assert gradient["b"] == 10.0
