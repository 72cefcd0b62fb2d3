"""Architectures: sizes of the papers, initial distributions, normalisations, odd images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.nets.layers import NORMS, pool2x2
from dd_jax.types import DataSpec


def spec(shape, classes=10):
    return DataSpec("t", shape, classes, tuple(map(str, range(classes))))


def count(network):
    shapes = jax.eval_shape(network.init, jax.random.key(0))["params"]
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize("shape,classes,depth,expected", [
    ((28, 28, 1), 10, 3, 317_706), ((32, 32, 3), 10, 3, 320_010), ((32, 32, 3), 100, 3, 504_420),
    ((64, 64, 3), 200, 4, 857_160),
])
def test_convnet_has_the_published_number_of_parameters(shape, classes, depth, expected):
    assert count(nets.convnet(spec(shape, classes), depth=depth)) == expected


def test_doubling_convnet_has_8192_features():
    network = nets.convnet_doubling(spec((32, 32, 3)))
    out = jax.eval_shape(lambda k, x: network.apply(network.init(k), x), jax.random.key(0),
                         jnp.zeros((2, 32, 32, 3)))
    assert out.features.shape == (2, 8192)
    assert [t.shape[1:] for t in out.taps] == [(32, 32, 128), (16, 16, 256), (8, 8, 512)]


def test_torch_initialisation_is_uniform_with_fan_in():
    params = nets.convnet(spec((28, 28, 1)), width=64).init(jax.random.key(0))["params"]
    for name, fan_in in (("conv0", 9), ("conv1", 9 * 64), ("head", 1024)):
        for leaf in ("kernel", "bias"):
            value = np.asarray(params[name][leaf])
            assert np.abs(value).max() <= fan_in**-0.5
        kernel = np.asarray(params[name]["kernel"])
        np.testing.assert_allclose(kernel.std(), (3 * fan_in) ** -0.5, rtol=0.06)


def test_lecun_initialisation_has_zero_bias():
    params = nets.convnet_doubling(spec((28, 28, 1)), width=32).init(jax.random.key(0))["params"]
    assert not np.any(params["conv1"]["bias"])
    np.testing.assert_allclose(np.std(params["conv1"]["kernel"]), (9 * 32) ** -0.5, rtol=0.06)


def test_instance_norm_equals_numpy():
    x = np.random.default_rng(0).normal(2.0, 3.0, (2, 5, 6, 4)).astype(np.float32)
    layer = nets.layers.InstanceNorm()
    ours = layer.apply(layer.init(jax.random.key(0), x), x)
    mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    np.testing.assert_allclose(ours, (x - mean) / np.sqrt(var + 1e-5), atol=2e-4)


def test_constant_images_give_finite_gradients():
    network = nets.convnet(spec((8, 8, 1)), depth=1, width=4)
    variables = network.init(jax.random.key(0))
    gradient = jax.grad(lambda x: network.apply(variables, x).logits.sum())(jnp.ones((2, 8, 8, 1)))
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_runs_and_only_batch_norm_keeps_statistics(norm):
    network = nets.convnet(spec((8, 8, 1)), depth=1, width=4, norm=norm)
    variables = network.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    out = network.apply(variables, x, True)
    assert np.all(np.isfinite(out.logits))
    assert ("batch_stats" in variables) == (norm == "batch")
    updated = nets.with_batch_stats(variables, out)
    if norm == "batch":
        old = jax.tree.leaves(variables["batch_stats"])
        new = jax.tree.leaves(updated["batch_stats"])
        assert not np.allclose(old[0], new[0])
    else:
        assert updated is variables


@pytest.mark.parametrize("name,kept", [("convnet", 0.9), ("convnet_widening", 0.9),
                                       ("convnet_prepended", 0.9), ("convnet_doubling", 0.1)])
def test_batch_norm_forgets_quickly_in_frepo_s_convnet_alone(name, kept):
    """running = kept * old + (1 - kept) * batch, from means of 0 and variances of 1."""
    network = nets.by_name(name, spec((8, 8, 1), 2), depth=2, width=2, norm="batch")

    @jax.jit
    def look(key):
        images = 1 + jax.random.normal(key, (4, 8, 8, 1))
        return network.norm_inputs(network.init(key), images, True)

    outputs, found = look(jax.random.key(0))
    stored = [outputs.batch_stats[layer] for layer in sorted(outputs.batch_stats)]
    for (mean, variance), running in zip(found, stored, strict=True):
        np.testing.assert_allclose(running["mean"], (1 - kept) * mean, atol=1e-5)
        np.testing.assert_allclose(running["var"], kept + (1 - kept) * variance, rtol=1e-3)


def test_kip_s_convnet_has_one_convolution_more():
    kip, plain = (nets.by_name(name, spec((28, 28, 1)), width=4, norm="none", first_padding=1)
                  for name in ("convnet_prepended", "convnet"))
    variables = jax.eval_shape(kip.init, jax.random.key(0))
    assert variables["params"]["first"]["kernel"].shape == (3, 3, 1, 4)
    assert count(kip) == count(plain) + 9 * 4 * 4 + 4
    out = jax.eval_shape(kip.apply, variables, jnp.zeros((2, 28, 28, 1)))
    assert [tap.shape[1:] for tap in out.taps] == [(28, 28, 4), (14, 14, 4), (7, 7, 4)]


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_equals_numpy_and_drops_the_odd_edge(pooling):
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    reduce = {"avg": np.mean, "max": np.max}[pooling]
    expected = np.stack([[reduce(x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], axis=(1, 2))
                          for j in range(2)] for i in range(2)]).transpose(2, 0, 1, 3)
    np.testing.assert_allclose(pool2x2(jnp.asarray(x), pooling), expected, rtol=1e-6)


@pytest.mark.parametrize("shape,depth", [
    ((7, 9, 3), 2), ((1, 1, 1), 2), ((28, 28, 1), 3), ((10, 6, 4), 1), ((5, 5, 2), 2),
])
def test_odd_and_small_images_work(shape, depth):
    network = nets.convnet(spec(shape, 2), depth=depth, width=4)
    out = network.apply(network.init(jax.random.key(0)), jnp.ones((2, *shape)))
    assert out.logits.shape == (2, 2)


@pytest.mark.parametrize("build", [
    lambda: nets.convnet(spec((8, 8, 3)), depth=4),
    lambda: nets.convnet(spec((1, 1, 3)), depth=1),
    lambda: nets.convnet(spec((8, 8, 3)), width=0),
    lambda: nets.convnet(spec((8, 8, 3)), norm="instnce"),
    lambda: nets.convnet(spec((8, 8, 3)), depth=1, pooling="mean"),
    lambda: nets.by_name("convnett", spec((8, 8, 3))),
    lambda: nets.convnet(spec((8, 8, 3)), depth=1, init_style="xavier").init(jax.random.key(0)),
])
def test_impossible_networks_are_refused(build):
    with pytest.raises(ConfigError):
        build()
