"""ResNet-18 for small images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import backend, nets
from dd_jax.errors import ConfigError
from dd_jax.nets.convolution import strided3x3
from dd_jax.nets.record import from_linen
from dd_jax.nets.resnet import ResNet, resnet18
from dd_jax.types import DataSpec

SPEC = DataSpec("toy", (9, 8, 2), 3, ("a", "b", "c"))


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 9, 2)])
def test_strided_convolution_is_every_second_place_of_the_dense_one(shape, monkeypatch):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, shape[-1], 4)), jnp.float32)
    dense = nets.conv3x3(x, kernel, formulation="patches")[:, ::2, ::2]
    np.testing.assert_allclose(strided3x3(x, kernel), dense, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(backend, "on_cpu", lambda: False)
    np.testing.assert_allclose(strided3x3(x, kernel), dense, rtol=1e-5, atol=1e-5)


def test_stages_halve_and_double():
    network = resnet18(SPEC, width=2, norm="batch")
    variables = jax.eval_shape(network.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((5, *SPEC.shape), jnp.float32)
    outputs = jax.eval_shape(network.apply, variables, images)
    assert [tap.shape[1:] for tap in outputs.taps] == [(9, 8, 2), (5, 4, 4), (3, 2, 8), (2, 1, 16)]
    assert outputs.features.shape == (5, 16) and outputs.logits.shape == (5, 3)
    assert len(jax.tree.leaves(variables["batch_stats"])) == 2 * 20


def test_a_short_one_runs_and_updates_its_statistics():
    network = from_linen(ResNet((1, 1), 2, 3), SPEC.shape, name="short")

    @jax.jit
    def run(key):
        variables = network.init(key)
        return variables, network.apply(variables, jax.random.normal(key, (5, *SPEC.shape)), True)

    variables, outputs = run(jax.random.key(0))
    np.testing.assert_allclose(outputs.features, outputs.taps[-1].mean((1, 2)), rtol=1e-5)
    assert np.all(np.isfinite(outputs.logits))
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), variables["batch_stats"],
                           outputs.batch_stats)
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize("change,message", [({"norm": "bach"}, "batch"), ({"width": 0}, "width")])
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        resnet18(SPEC, **change)
    with pytest.raises(ConfigError, match="4x4"):
        resnet18(DataSpec("toy", (4, 4, 1), 2, ("a", "b")))
