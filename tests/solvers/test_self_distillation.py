"""Self-distillation of kernel regression: the closed form against the solves it stands for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.solvers import best_shares, fit_kernel, self_distilled

ROWS, VALID, TARGETS, RIDGE = 9, 6, 2, 0.3


def problem(seed=0):
    """(K, y, K_v, v) in float64."""
    rng = np.random.default_rng(seed)
    x, x_v = rng.normal(size=(ROWS, 4)), rng.normal(size=(VALID, 4))
    y, v = (np.sin(z[:, :TARGETS] * 2) + 0.5 * rng.normal(size=(len(z), TARGETS))
            for z in (x, x_v))

    def kernel(a, b):
        return np.exp(-0.3 * ((a[:, None] - b[None]) ** 2).sum(axis=-1))

    return kernel(x, x), y, kernel(x_v, x), v


def repeated(gram, y, shares, ridge=RIDGE):
    """alpha after the solves one by one, the first share being that of the first step."""
    fitted = np.zeros_like(y)
    for share in shares:
        told = share * y + (1 - share) * fitted
        alpha = np.linalg.solve(gram + ridge * np.eye(len(gram)), told)
        fitted = gram @ alpha
    return alpha, fitted


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_the_closed_form_is_the_repeated_solve(steps, share):
    gram, y, *_ = problem()
    alpha, fitted = repeated(gram, y, [1.0] + [share] * (steps - 1))
    with jax.enable_x64(True):
        ours = self_distilled(jnp.asarray(gram), jnp.asarray(y), steps=steps, share=share,
                              ridge=RIDGE)
        np.testing.assert_allclose(ours.alpha, alpha, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(ours.fitted, fitted, rtol=1e-9, atol=1e-11)
        values = np.linalg.eigvalsh(gram)
        kept = values / (values + RIDGE)
        wanted = np.ones(ROWS)
        for a in [1.0] + [share] * (steps - 1):
            wanted = kept * (a + (1 - a) * wanted)
        np.testing.assert_allclose(ours.shrinkage, wanted, atol=1e-11)


def test_one_step_is_kernel_ridge_regression_and_many_are_one_of_a_larger_ridge():
    gram, y, *_ = (jnp.asarray(x, jnp.float32) for x in problem())
    for steps, share, ridge in ((1, 0.5, RIDGE), (200, 0.25, RIDGE / 0.25)):
        ours = self_distilled(gram, y, steps=steps, share=share, ridge=RIDGE)
        plain = fit_kernel(gram, y, ridge=ridge, mode="absolute")
        np.testing.assert_allclose(ours.fitted, gram @ plain.alpha, atol=1e-5)


def test_without_ground_truth_each_step_shrinks_more():
    gram, y, *_ = (jnp.asarray(x, jnp.float32) for x in problem())
    lengths = [float(jnp.linalg.norm(self_distilled(
        gram, y, steps=steps, share=0.0, ridge=RIDGE).fitted)) for steps in (1, 2, 5, 20)]
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] < 0.5 * lengths[0]


def test_the_best_shares_beat_a_fine_grid_and_are_those_of_the_solves():
    gram, y, cross, v = problem(seed=1)
    v = 0.7 * v  # so that shrinking more helps
    with jax.enable_x64(True):
        best = best_shares(*map(jnp.asarray, (gram, y, cross, v)), steps=4, ridge=RIDGE)
        best = jax.tree.map(np.asarray, best)
    shares = best.shares
    assert shares[0] == 1 and ((shares >= 0) & (shares <= 1)).all() and (shares[1:] < 1).any()
    for step in range(1, 5):
        alpha, _ = repeated(gram, y, shares[:step])
        np.testing.assert_allclose(best.errors[step - 1], ((cross @ alpha - v) ** 2).mean(),
                                   rtol=1e-9)
        others = [((cross @ repeated(gram, y, [*shares[:step - 1], a])[0] - v) ** 2).mean()
                  for a in np.linspace(0, 1, 101)] if step > 1 else []
        assert all(best.errors[step - 1] <= other + 1e-12 for other in others)
    np.testing.assert_allclose(best.alpha, repeated(gram, y, shares)[0], rtol=1e-8, atol=1e-10)


def test_a_gram_matrix_of_rank_one_and_zeros_are_no_trouble():
    for gram in (jnp.zeros((3, 3)), jnp.ones((3, 3))):
        ours = self_distilled(gram, jnp.eye(3), steps=5, share=0.2, ridge=1e-3)
        best = best_shares(gram, jnp.eye(3), gram, jnp.eye(3), steps=3, ridge=1e-3)
        assert all(np.isfinite(x).all() for x in (*ours, *best))


GOOD = {"gram": np.eye(3), "targets": np.ones((3, 2)), "steps": 2, "share": 0.5, "ridge": 0.1}


@pytest.mark.parametrize("change, said", [
    ({"steps": 0}, "steps is 0"), ({"share": 1.5}, "share is 1.5"), ({"ridge": 0.0}, "ridge is 0"),
    ({"ridge": -1.0}, "ridge is -1.0"), ({"gram": np.ones((3, 2))}, "gram has shape"),
    ({"targets": np.ones((4, 2))}, "targets has shape"),
])
def test_what_cannot_be_is_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        self_distilled(**GOOD | change)


def test_validation_rows_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="cross"):
        best_shares(np.eye(3), np.ones((3, 2)), np.ones((4, 5)), np.ones((4, 2)), steps=2,
                    ridge=0.1)
    with pytest.raises(ConfigError, match="validation"):
        best_shares(np.eye(3), np.ones((3, 2)), np.ones((4, 3)), np.ones((4, 1)), steps=2,
                    ridge=0.1)
