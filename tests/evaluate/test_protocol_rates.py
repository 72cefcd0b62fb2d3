"""Rates and optimisers of protocols, and names in them that are refused before any work."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import methods
from dd_jax.errors import ConfigError
from dd_jax.evaluate import protocol
from dd_jax.evaluate.optimizers import directions, rate_schedule
from tests.laws import members


@pytest.mark.parametrize("epochs,ends", [(20, (4, 8, 12, 16)), (13, (2, 5, 7, 10))])
def test_the_rate_is_halved_after_each_fifth(epochs, ends):
    peak, per_epoch = 0.5, 3
    rate = rate_schedule(protocol("t", schedule="fifths", learning_rate=peak).optimizer, epochs,
                         per_epoch)
    bounds = [0, *ends, epochs]
    for fifth in range(5):
        first, last = bounds[fifth] * per_epoch, bounds[fifth + 1] * per_epoch - 1
        np.testing.assert_allclose([rate(first), rate(last)], peak / 2**fifth, rtol=1e-6)


def adamw(w, gradients, rates, decay):
    """Adam with bias correction; the weights also shrink by rate * decay, beside the moments."""
    first, second = np.zeros_like(w), np.zeros_like(w)
    for step, (g, rate) in enumerate(zip(gradients, rates), 1):
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        move = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        w = w - rate * (move + decay * w)
    return w


@pytest.mark.parametrize("steps", [1, 2])
def test_adamw_decays_apart_from_its_moments(steps):
    rng = np.random.default_rng(0)
    start, gradients = 3 * rng.normal(size=4), rng.normal(size=(steps, 4))
    by = protocol("t", optimizer="adamw", weight_decay=0.3, learning_rate=0.2,
                  schedule="fifths").optimizer
    rate = rate_schedule(by, 5, 1)
    with jax.enable_x64(True):
        transform, w = directions(by), jnp.asarray(start)
        state = transform.init(w)
        for step in range(steps):
            move, state = transform.update(jnp.asarray(gradients[step]), state, w)
            w = optax.apply_updates(w, -rate(step) * move)
        found = np.asarray(w)
    rates = [0.2, 0.1][:steps]
    np.testing.assert_allclose(found, adamw(start, gradients, rates, 0.3), rtol=1e-6)
    assert np.abs(found - adamw(start, gradients, rates, 0.0)).max() > 0.01


@pytest.mark.parametrize("change,named", [
    ({"norm": "instnce"}, "instance"), ({"norm": "bach"}, "batch"),
    ({"augmentation": "dsaa"}, "dsa"), ({"augmentation": "idc_digit"}, "idc_digits"),
    ({"schedule": "fifth"}, "fifths"), ({"optimizer": "adamv"}, "adamw"),
], ids=lambda x: x if isinstance(x, str) else None)
def test_an_unknown_name_is_refused_with_the_nearest(change, named):
    (field, value), = change.items()
    with pytest.raises(ConfigError, match=f"'{value}'.*did you mean.*'{named}'"):
        protocol("t", **change)


@pytest.mark.parametrize("method,change,said", [
    ("ncfm", {"augmentation": "dsaa"}, "dsaa.*'dsa'"),
    ("m3d", {"augmentation": "dsaa"}, "dsaa.*'dsa'"),
    ("wmdd", {"augmentation": "dsaa"}, "dsaa.*'dsa'"),
    ("ncfm", {"matching": "idc_machting"}, "idc_machting.*'idc_matching'"),
    ("wmdd", {"evaluation_norm": "bach"}, "bach.*'batch'"),
    ("wmdd", {"roll": -1}, "roll is -1"),
], ids=lambda x: "-".join(x) if isinstance(x, dict) else x)
@pytest.mark.parametrize("protocol", ["official", "cpu"])
def test_a_recipe_refuses_them_when_it_is_built(protocol, method, change, said):
    with pytest.raises(ConfigError, match=said):
        methods.recipe(method, members.toy_data(), protocol=protocol, **change)


def test_the_official_evaluation_of_ncfm():
    protocol = methods.recipe("ncfm", members.toy_data(), width=2, depth=1, bank=1,
                              bank_steps=1).evaluation
    by = protocol.optimizer
    assert (by.name, by.weight_decay, by.schedule, by.learning_rate) == ("adamw", 0.01, "fifths",
                                                                         1e-3)
    assert protocol.plan.epochs == 2000
