"""Sinkhorn's plans against linear programming, sorting and the optimality conditions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.solvers.sinkhorn import sinkhorn

solve = jax.jit(sinkhorn, static_argnames="iterations")


def problem(seed=0, k=5, n=12):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(k, n)), rng.dirichlet(np.ones(k)), rng.dirichlet(np.ones(n))


def linear_program(cost, a, b):
    """The exact plan, by SciPy."""
    from scipy.optimize import linprog

    k, n = cost.shape
    marginals = np.concatenate([np.kron(np.eye(k), np.ones(n)), np.kron(np.ones(k), np.eye(n))])
    found = linprog(cost.ravel(), A_eq=marginals, b_eq=np.concatenate([a, b]))
    assert found.status == 0
    return found.fun, found.eqlin.marginals[:k]


def test_approaches_the_linear_program_as_epsilon_falls():
    cost, a, b = problem()
    best, slopes = linear_program(cost, a, b)
    with jax.enable_x64(True):
        gaps = []
        for epsilon in (1e-1, 1e-2, 1e-3):
            found = solve(*map(jnp.asarray, (cost, a, b)), epsilon=epsilon, iterations=3000)
            assert found.plan.dtype == jnp.float64 and float(found.residual) < 1e-8
            np.testing.assert_allclose(found.plan.sum(axis=1), a, atol=1e-12)
            np.testing.assert_allclose(found.plan.sum(axis=0), b, atol=1e-8)
            gaps.append(float(np.sum(found.plan * cost)) - best)
            assert -1e-9 <= gaps[-1] <= epsilon * np.log(5)
        assert gaps[2] < gaps[1] / 5 < gaps[0] / 25
        # The potentials are the derivative of the cost in the masses, up to a constant.
        rows = np.asarray(found.potentials.rows)
        np.testing.assert_allclose(rows - rows.mean(), slopes - slopes.mean(), atol=5e-3)


def test_in_one_dimension_sorted_points_meet():
    rng = np.random.default_rng(1)
    x, y = (rng.permutation(30) / 10 + rng.uniform(0, 0.05, size=30) for _ in "xy")
    cost = jnp.float32((x[:, None] - y) ** 2)
    equal = jnp.full(30, 1 / 30)
    found = solve(cost, equal, equal, epsilon=1e-3, iterations=1000)
    wanted = np.mean((np.sort(x) - np.sort(y)) ** 2)
    assert abs(float(jnp.sum(found.plan * cost)) - wanted) < 1e-3 and float(found.residual) < 1e-2
    np.testing.assert_array_equal(np.argmax(found.plan, axis=1)[np.argsort(x)], np.argsort(y))


def test_masses_of_zero_and_equal_costs():
    cost, a, b = problem(3)
    a[1], b[4:7] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    cost[:, 4:7] *= 100  # what is left out does not matter, however far away
    found = solve(*map(jnp.float32, (cost, a, b)), epsilon=0.05, iterations=500)
    plan = np.asarray(found.plan)
    assert np.all(np.isfinite(plan)) and not plan[1].any() and not plan[:, 4:7].any()
    np.testing.assert_allclose(plan.sum(axis=0), b, atol=1e-5)
    flat = solve(jnp.zeros((5, 12)), jnp.float32(a), jnp.float32(b), epsilon=1e-3, iterations=5)
    np.testing.assert_allclose(flat.plan, np.outer(a, b), atol=1e-6)


def test_vmap_equals_single_solves():
    cost, a, b = (jnp.float32(np.stack(x)) for x in zip(*(problem(seed) for seed in range(3))))
    many = jax.jit(jax.vmap(lambda *x: sinkhorn(*x, epsilon=0.05, iterations=50)))(cost, a, b)
    for i in range(3):
        one = solve(cost[i], a[i], b[i], epsilon=0.05, iterations=50)
        np.testing.assert_allclose(many.plan[i], one.plan, atol=1e-5)


@pytest.mark.parametrize("change,name", [
    (dict(cost=jnp.zeros((2, 3), int)), "cost"), (dict(cost=jnp.zeros(3)), "cost"),
    (dict(a=jnp.ones(3)), "masses"), (dict(b=jnp.ones(2)), "masses"),
    (dict(epsilon=0.0), "epsilon"), (dict(epsilon=float("nan")), "epsilon"),
    (dict(iterations=0), "iterations"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_inputs_are_named(change, name):
    wrong = {**dict(cost=jnp.zeros((2, 3)), a=jnp.ones(2) / 2, b=jnp.ones(3) / 3, epsilon=0.1,
                    iterations=5), **change}
    with pytest.raises(ConfigError, match=name):
        sinkhorn(wrong.pop("cost"), wrong.pop("a"), wrong.pop("b"), **wrong)
