"""Shares of a budget, and which of two budgets is the larger one."""

from __future__ import annotations

import pytest

from dd_jax.errors import ConfigError
from dd_jax.evaluate import protocol
from dd_jax.methods import preset
from experiments.budgets import Budget, exceeds, shortened, shortened_test


@pytest.mark.parametrize("method,length,warm", [
    ("dm", "steps", None), ("rfad", "steps", None), ("m3d", "iterations", None),
    ("dsa", "networks", None), ("dcc", "networks", "warm_networks"),
])
def test_a_share_of_the_length_and_nothing_else(method, length, warm):
    whole = preset(method, "cpu", 1)
    short = shortened(whole, 0.1)
    changed = {name for name in vars(whole) if getattr(whole, name) != getattr(short, name)}
    assert changed == {length, warm} - {None}
    assert getattr(short, length) == round(getattr(whole, length) * 0.1)
    assert shortened(whole, 1.0) == whole
    assert getattr(shortened(whole, 1e-9), length) == 1


def test_a_method_without_steps_stays_as_it_is():
    whole = preset("label_solve", "cpu", 1)
    assert shortened(whole, 0.1) == whole


def test_a_test_is_shortened_with_its_warm_up_and_the_ceiling_only_when_asked():
    whole = protocol("t", epochs=600, warmup=500, schedule="warmup_cosine", full_epochs=20)
    short = shortened_test(whole, 0.1)
    assert (short.plan.epochs, short.optimizer.warmup, short.full.epochs) == (60, 50, 20)
    assert shortened_test(whole, 0.1, full=True).full.epochs == 2
    assert shortened_test(whole, 1.0) is whole


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_no_share(share):
    with pytest.raises(ConfigError, match="share is"):
        shortened(preset("dm", "cpu", 1), share)
    with pytest.raises(ConfigError, match="share is"):
        shortened_test(protocol("t"), share)


@pytest.mark.parametrize("images,steps", [(10, 30), (64, 30), (65, 60), (500, 240)])
def test_steps_of_a_test(images, steps):
    assert protocol("t", epochs=30, batch_size=64).steps(images) == steps


def test_a_larger_budget_is_told_by_name():
    today = Budget(500, 1000, 5)
    assert exceeds(today, today) == [] == exceeds(Budget(100, 10, 1), today)
    assert exceeds(Budget(501, 1000, 5), today) == ["steps 501 > 500"]
    assert exceeds(Budget(1, 1001, 6), today) == ["test steps 1001 > 1000", "networks 6 > 5"]
    assert exceeds(Budget(None, None, None), today) == []
