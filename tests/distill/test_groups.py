"""The groups of an optimizer have one order: the text of a program is the same in every run."""

from __future__ import annotations

import types

import jax.numpy as jnp
import optax

from dd_jax.distill.recipe import grouped_optimizer


def test_the_order_does_not_depend_on_the_seed_of_hashes():
    names = ["images", "labels", "rates", "a", "z", "constant"]
    recipe = types.SimpleNamespace(
        optimizer=optax.sgd(0.1),
        parameterization=types.SimpleNamespace(groups=lambda params: dict(zip(names, names))))
    state = grouped_optimizer(recipe, {}).init({name: jnp.zeros(1) for name in names})
    assert list(state.inner_states) == ["a", "images", "labels", "rates", "z", "constant"]
