"""Distances of gradients against loops over rows, and where rows vanish."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.objectives.gradient_distances import DISTANCES, distance_named
from tests.objectives import reference_gradients as reference

NAMES = sorted(DISTANCES)


@jax.jit
def measured(real, synthetic):
    """name -> (value, slope in the synthetic gradient), all in one program."""
    return {name: jax.value_and_grad(distance_named(name), argnums=1)(real, synthetic)
            for name in NAMES}


def tree(seed):
    rng = np.random.default_rng(seed)
    return {"conv": {"kernel": rng.normal(size=(3, 3, 2, 4)), "bias": rng.normal(size=4)},
            "norm": {"scale": rng.normal(size=4)},
            "head": {"kernel": rng.normal(size=(5, 3)), "bias": rng.normal(size=3)}}


@pytest.mark.parametrize("name", NAMES)
def test_distance_equals_the_loops(name):
    real, synthetic = tree(0), tree(1)
    with jax.enable_x64(True):
        ours, _ = measured(real, synthetic)[name]
        assert ours.dtype == jnp.float64 and ours.shape == ()
    np.testing.assert_allclose(ours, getattr(reference, name)(real, synthetic), rtol=1e-12)


@pytest.mark.parametrize("name,counts", [
    ("row_cosine", {"conv/kernel", "head/kernel"}),
    ("conv_squared", {"conv/kernel"}),
    ("conv_absolute", {"conv/kernel"}),
    ("cosine", {"conv/kernel", "head/kernel", "conv/bias", "norm/scale", "head/bias"}),
    ("squared", {"conv/kernel", "head/kernel", "conv/bias", "norm/scale", "head/bias"}),
])
def test_only_what_should_counts(name, counts):
    _, slope = measured(tree(0), tree(1))[name]
    moving = {f"{layer}/{leaf}" for layer, leaves in slope.items() for leaf, g in leaves.items()
              if np.any(np.asarray(g) != 0)}
    assert moving == counts


def test_row_cosine_sees_the_direction_of_a_row_and_not_its_length():
    """Rows are what feeds one output, the last axis: lines of other axes are not just rescaled."""
    real, scaled, turned = tree(0), tree(0), tree(0)
    scaled["conv"]["kernel"] *= np.array([1.0, 2.0, 30.0, 0.5])
    turned["head"]["kernel"] *= np.array([1.0, -1.0, 1.0])
    assert abs(float(measured(real, scaled)["row_cosine"][0])) < 1e-4
    np.testing.assert_allclose(measured(real, turned)["row_cosine"][0], 2.0, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["real", "synthetic", "both", "everywhere"])
def test_zero_rows_have_finite_values_and_derivatives(name, where):
    real, synthetic = tree(0), tree(1)

    def emptied(t):
        if where == "everywhere":
            return jax.tree.map(np.zeros_like, t)
        t["conv"]["kernel"][..., 1] = 0.0
        t["head"]["kernel"][:, 0] = 0.0
        return t

    if where in ("real", "both", "everywhere"):
        real = emptied(real)
    if where in ("synthetic", "both", "everywhere"):
        synthetic = emptied(synthetic)
    value, slope = measured(real, synthetic)[name]
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(slope))
    if where == "everywhere" and name == "row_cosine":
        assert float(value) == 4 + 3  # an empty row is as far as an orthogonal one


def test_an_unknown_distance_is_refused_by_name():
    with pytest.raises(ConfigError, match="row_cosin.*row_cosine"):
        distance_named("row_cosin")
