"""The closed form of the game against a linear programme, and draws out of it."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.select.dynamics import Dynamics
from dd_jax.select.robust_queries import drawn, query_distribution, robust_active
from tests.select import reference_scores as slow


def best_value(gains, wrong, *, cost=0):
    """max_q min_W as a linear programme with a row for every set W; its value."""
    linprog = pytest.importorskip("scipy.optimize").linprog
    size = len(gains)
    rows = []
    for places in itertools.combinations(range(size), wrong):
        row = np.array(gains, np.float64)
        row[list(places)] *= -cost
        rows.append([*-row, 1.0])  # t <= the gain that is left
    found = linprog([*np.zeros(size), -1.0], A_ub=rows, b_ub=np.zeros(len(rows)),
                    A_eq=[[*np.ones(size), 0.0]], b_eq=[1.0],
                    bounds=[(0, None)] * size + [(None, None)])
    assert found.success
    return -found.fun


@pytest.mark.parametrize("wrong", [0, 1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_closed_form_is_the_value_of_the_game(wrong, seed):
    gains = np.random.default_rng(seed).uniform(0.05, 1, 9) ** (1 + seed)
    shares = query_distribution(gains, wrong)
    np.testing.assert_allclose(shares.sum(), 1)
    np.testing.assert_allclose(slow.worst_gain(shares, gains, wrong), best_value(gains, wrong),
                               rtol=1e-7)
    support = np.flatnonzero(shares)
    np.testing.assert_allclose(shares[support] * gains[support],
                               (shares * gains)[support[0]])
    assert len(support) > wrong and gains[support].min() >= gains[shares == 0].max(initial=0)


def test_where_a_wrong_answer_costs_as_much_twice_as_many_are_wrong():
    gains = np.random.default_rng(7).uniform(0.2, 1, 9)
    shares, wrong = query_distribution(gains, 2 * 2), 2
    won = np.sort(shares * gains)
    np.testing.assert_allclose(won[:-wrong].sum() - won[-wrong:].sum(),
                               best_value(gains, wrong, cost=1), rtol=1e-7)


def test_what_cannot_be_is_refused():
    assert query_distribution([0.3, 0.9, 0.2], 0).tolist() == [0, 1, 0]
    np.testing.assert_allclose(query_distribution([0.5, 0.0, 0.5, 1e-9], 1), [0.5, 0, 0.5, 0])
    for gains, wrong, told in (([0.5, 0.0], 1, "wrong is 1, and 1 images gain"),
                               ([0.5, -0.1], 0, "gains are -0.1"), ([np.nan, 1], 0, "finite"),
                               ([0.5, 1], -1, "wrong is -1"), ([0.5, 1], 0.5, "wrong is 0.5")):
        with pytest.raises(ConfigError, match=told):
            query_distribution(gains, wrong)
    for wrong in (-0.1, 1, 1.5):
        with pytest.raises(ConfigError, match="wrong is"):
            robust_active(wrong)


def test_draws_follow_the_distribution_and_padding_is_never_drawn():
    gains = jnp.float32([0.9, 0.3, 0.8, 0.5, 0.05, 1.0, 7.0])
    valid = jnp.arange(7) != 6
    wanted = query_distribution(gains[:6], 2)
    first = [drawn(gains, valid, 1, jax.random.key(i), wrong=0.4).rows[0] for i in range(400)]
    found = np.bincount(first, minlength=7) / 400
    assert found[6] == 0 and (found[:6][wanted == 0] == 0).all()
    np.testing.assert_allclose(found[:6], wanted, atol=4 * np.sqrt(0.25 / 400))
    support = np.flatnonzero(wanted)
    for seed in range(5):
        rows = drawn(gains, valid, 6, jax.random.key(seed), wrong=0.4).rows.tolist()
        assert set(rows[: len(support)]) == set(support.tolist())
        assert (np.diff(np.asarray(gains)[rows[len(support) :]]) <= 0).all()


def test_nothing_wrong_is_plain_margin_and_nothing_to_gain_is_any_order():
    gains, valid = jnp.float32([0.1, 0.9, 0.4]), jnp.ones(3, bool)
    assert drawn(gains, valid, 3, jax.random.key(0), wrong=0.0).rows.tolist() == [1, 2, 0]
    assert drawn(jnp.zeros(3), valid, 2, jax.random.key(0), wrong=0.5).rows.tolist() == [0, 1]
    one = drawn(jnp.float32([0, 0.5, 0]), valid, 2, jax.random.key(0), wrong=0.9).rows.tolist()
    assert one == [1, 0]


def test_gains_are_of_the_margins_of_the_last_epoch_that_counts():
    margin = np.random.default_rng(0).uniform(size=(3, 5, 8)).astype(np.float32)
    seen = Dynamics(*[margin] * len(Dynamics._fields))
    for until, epoch in ((None, 4), (2, 1)):
        found = robust_active(until=until).score(None, {"dynamics": seen}, None)
        np.testing.assert_allclose(found, 1 - margin[:, epoch].mean(axis=0), rtol=1e-6)
    with pytest.raises(ConfigError, match="until is 6, and 5 epochs"):
        robust_active(until=6).score(None, {"dynamics": seen}, None)
