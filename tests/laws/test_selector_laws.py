"""The laws of every selector: order of the data, keys, budgets, balance, and order of choice."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dd_jax.data import from_arrays
from dd_jax.errors import NonFiniteError
from dd_jax.select import OF_FEATURES, OF_GRADIENTS, Budget, select, selectors
from dd_jax.select.archaeology import Probed, archaeology
from dd_jax.select.boundary import Boundary, deepfool
from dd_jax.select.contrastive import cal
from dd_jax.select.dynamic_scores import SCORES, of_dynamics
from dd_jax.select.dynamics import Dynamics
from dd_jax.select.gradients import LastLayer
from dd_jax.select.probes import Probes
from dd_jax.select.robust_queries import robust_active

SIZES = (7, 12, 20)
# A new selector is added here once and meets every law.
SELECTORS = {
    "random": selectors.random(),
    "k_center_random": selectors.k_center("random"),
    **{name: make() for name, make in (*OF_FEATURES.items(), *OF_GRADIENTS.items())},
    **{score: of_dynamics(score) for score in SCORES},
    **{f"el2n_{order}": of_dynamics("el2n", order=order) for order in ("middle", "bottom")},
    "cal": cal(3), "cal_in_set": cal(3, among="set", towards="symmetric"),
    "deepfool": deepfool(), "archaeology": archaeology(neighbours=5),
    "archaeology_bottom": archaeology("random_outputs", order="bottom", neighbours=5),
    "robust_active": robust_active(0.25),
}
# Whose first choices are those of a smaller budget.
NOT_NESTED = {"k_means"}
BUDGETS = {
    "per class": Budget(per_class=5), "share": Budget(share=0.4),
    "in total": Budget(total=13, within="set"), "others": Budget(per_class=9, short="others"),
}


def known(order=None):
    """The data, and what selectors may need of it, with rows in another order."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    total = len(labels)
    order = np.arange(total) if order is None else order
    points = np.float32(rng.normal(size=(total, 4)) + labels[:, None])
    found = {name: np.float32(rng.uniform(0.01, 2, (3, 6, total))) for name in Dynamics._fields}
    found["correct"] = rng.uniform(size=(3, 6, total)) < 0.5
    found["margin"] /= 2  # it is at most 1
    pixels = np.uint8(rng.integers(0, 256, (total, 2, 2, 1)))
    logits = np.float32(rng.normal(size=(total, 3)))
    far = Boundary(np.float32(rng.uniform(size=total)), rng.uniform(size=total) < 0.8)
    suite = np.int32(rng.permutation(np.arange(total) % 5 - 1))
    probes = Probes(suite, (suite >= 0) & (rng.uniform(size=total) < 0.8))
    # Two images that are left and nearest to each other gain CRAIG equally much: not so here.
    error = np.random.default_rng(1).dirichlet(np.ones(3), total) - np.eye(3)[labels]
    return (from_arrays(pixels[order], labels[order]),
            {"features": points[order], "logits": logits[order],
             "gradients": LastLayer(np.float32(error)[order], points[order]),
             "dynamics": Dynamics(*(found[name][..., order] for name in Dynamics._fields)),
             "boundary": Boundary(*(part[order] for part in far)),
             "probed": Probed(found["loss"][0][:, order], Probes(*(p[order] for p in probes)))})


def chosen(name, budget, *, seed=0, order=None):
    data, have = known(order)
    return select(SELECTORS[name], data, have, BUDGETS[budget], key=jax.random.key(seed))


@pytest.mark.parametrize("name", [name for name in SELECTORS if not SELECTORS[name].drawn])
@pytest.mark.parametrize("budget", ["per class", "in total"])
def test_permuted_data_are_chosen_alike_whatever_the_key(name, budget):
    wanted = chosen(name, budget)
    order = np.random.default_rng(1).permutation(sum(SIZES))
    found = chosen(name, budget, seed=5, order=order)
    assert order[found.rows].tolist() == wanted.rows.tolist()
    np.testing.assert_allclose(found.weights, wanted.weights, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in SELECTORS if SELECTORS[name].drawn])
def test_one_that_draws_gives_the_same_rows_for_the_same_key_and_others_for_another(name):
    first, again, other = (chosen(name, "per class", seed=seed) for seed in (0, 0, 1))
    assert first.rows.tolist() == again.rows.tolist() != other.rows.tolist()


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_budget_and_balance_are_exact(name, budget):
    data, _ = known()
    found = chosen(name, budget)
    assert found.rows.dtype == np.int32 and found.weights.dtype == np.float32
    assert found.rows.shape == found.weights.shape and len(set(found.rows.tolist())) == len(
        found.rows)
    assert (found.weights >= 0).all() and np.isfinite(found.weights).all()
    held = np.bincount(np.asarray(data.labels)[found.rows], minlength=3)
    wanted = {"per class": [5, 5, 5], "share": [3, 5, 8], "others": [7, 10, 10]}.get(budget)
    assert held.tolist() == wanted if wanted else held.sum() == 13


@pytest.mark.parametrize("name", [name for name in SELECTORS if name not in NOT_NESTED])
def test_the_order_of_choice_is_kept(name):
    """A larger budget begins with the choice of a smaller one."""
    data, have = known()
    small, large = (select(SELECTORS[name], data, have, Budget(per_class=n), key=jax.random.key(0))
                    for n in (3, 7))
    assert large.rows.reshape(3, 7)[:, :3].tolist() == small.rows.reshape(3, 3).tolist()


@pytest.mark.parametrize("name", [name for name in SELECTORS if SELECTORS[name].needs])
def test_what_is_not_finite_is_refused(name):
    data, have = known()

    def with_nan(x):
        if not np.issubdtype(x.dtype, np.floating):
            return x
        x = x.copy()
        x[(slice(None),) * x.shape.index(sum(SIZES)) + (4,)] = np.nan
        return x

    spoilt = jax.tree.map(with_nan, have)
    with pytest.raises(NonFiniteError, match="row|rows"):
        select(SELECTORS[name], data, spoilt, Budget(per_class=2), key=jax.random.key(0))
