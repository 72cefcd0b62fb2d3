"""VGG-11 and AlexNet for small images, and the convolution of any kernel size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import backend, nets
from dd_jax.errors import ConfigError
from dd_jax.nets.conv_patches import conv
from dd_jax.nets.layers import pool2x2
from dd_jax.types import DataSpec


def spec(shape, classes=10):
    return DataSpec("toy", shape, classes, tuple(str(i) for i in range(classes)))


def shapes_of(network, shape):
    variables = jax.eval_shape(network.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((5, *shape), jnp.float32)
    return variables, jax.eval_shape(network.apply, variables, images)


# Convolutions (k k Ci + 1) Co, instance norm 2 Co, the dense layer (P + 1) K, one after another.
VGG = (10 * 64 + 2 * 64, 577 * 128 + 2 * 128, 1153 * 256 + 2 * 256, 2305 * 256 + 2 * 256,
       2305 * 512 + 2 * 512, 3 * (4609 * 512 + 2 * 512), 513 * 10)
ALEXNET = (26 * 128, 3201 * 192, 1729 * 256, 2305 * 192, 1729 * 192, 3073 * 10)


@pytest.mark.parametrize("name,shape,expected,features,taps", [
    ("vgg11", (28, 28, 1), sum(VGG), 512, (32, 16, 8, 4, 2)),
    ("vgg11", (32, 32, 3), sum(VGG) + 18 * 64, 512, (32, 16, 8, 4, 2)),
    ("alexnet", (28, 28, 1), sum(ALEXNET), 3072, (32, 16, 8)),
    ("alexnet", (32, 32, 3), sum(ALEXNET) + 50 * 128, 3072, (32, 16, 8)),
])
def test_parameters_and_maps(name, shape, expected, features, taps):
    network = nets.by_name(name, spec(shape))
    variables, out = shapes_of(network, shape)
    assert sum(x.size for x in jax.tree.leaves(variables)) == expected
    assert expected in {9229962, 9231114, 1865802, 1872202}
    assert out.logits.shape == (5, 10) and out.features.shape == (5, features)
    assert [tap.shape[1:3] for tap in out.taps] == [(s, s) for s in taps]
    assert network.name == name


def test_widths_are_in_proportion():
    for name, expected in (("vgg11", [3, 6, 12, 12, 24, 24, 24, 24]), ("alexnet", [3, 4, 6, 4, 4])):
        params = shapes_of(nets.by_name(name, spec((28, 28, 1)), width=3), (28, 28, 1))[0]["params"]
        assert [params[key]["bias"].shape[0] for key in sorted(params)
                if "conv" in key and "norm" not in key] == expected


@pytest.mark.parametrize("shape,size,padding", [((2, 5, 6, 3), 5, 2), ((1, 4, 4, 1), 5, 4),
                                                ((2, 6, 4, 2), 3, 0)])
def test_convolution_is_the_native_one_in_value_and_gradient(shape, size, padding, monkeypatch):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, shape[-1], 4)), jnp.float32)

    def native(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), 2 * [(padding, padding)],
                                            dimension_numbers=("NHWC", "HWIO", "NHWC"))

    expected, pull = jax.vjp(native, x, kernel)
    ahead = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    for on_cpu in (True, False):
        monkeypatch.setattr(backend, "on_cpu", lambda on_cpu=on_cpu: on_cpu)
        value, ours = jax.vjp(lambda x, k: conv(x, k, padding=padding), x, kernel)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
        for mine, theirs in zip(ours(ahead), pull(ahead)):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def native_same(x, layer, grown=0):
    """XLA's own convolution with bias, on maps that grow by `grown` pixels on each side."""
    x = jnp.pad(x, ((0, 0), (grown, grown), (grown, grown), (0, 0)))
    return layer["bias"] + jax.lax.conv_general_dilated(
        x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def max_pool(x):
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def against_by_hand(network, shape, by_hand, train=False):
    """Asserts that the network's logits are those of `by_hand`; returns (variables, outputs)."""

    @jax.jit
    def run(key):
        variables = network.init(key)
        x = jax.random.normal(jax.random.fold_in(key, 1), (3, *shape))
        features = by_hand(variables["params"], x).reshape(3, -1)
        head = variables["params"]["head"]
        return variables, network.apply(variables, x, train), (
            features, features @ head["kernel"] + head["bias"])

    variables, out, (features, logits) = run(jax.random.key(0))
    np.testing.assert_allclose(out.features, features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(out.logits, logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(out.features, pool2x2(out.taps[-1], "max").reshape(3, -1),
                               rtol=1e-6)
    return variables, out


@pytest.mark.parametrize("channels", [1, 2])
def test_alexnet_is_the_composition_it_says(channels):
    def by_hand(params, x):
        for i in range(5):
            grown = 2 if i == 0 and channels == 1 else 0
            x = jnp.maximum(native_same(x, params[f"conv{i}"], grown), 0)
            x = max_pool(x) if i in (0, 1, 4) else x
        return x

    shape = (8, 9, channels)
    variables, _ = against_by_hand(nets.alexnet(spec(shape, 3), width=4), shape, by_hand)
    # PyTorch's bound 1 / sqrt(25 * 4), and not far below it.
    assert 0.09 < abs(variables["params"]["conv1"]["kernel"]).max() <= 0.1


def test_vgg_is_the_composition_it_says_and_keeps_running_statistics():
    def by_hand(params, x):
        for block, count in enumerate((1, 1, 2, 2, 2)):
            for i in range(count):
                x = native_same(x, params[f"block{block}_conv{i}"], 2 * (block == 0))
                x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
                x = jnp.maximum(x, 0)
            x = max_pool(x)
        return x

    network = nets.vgg11(spec((28, 28, 1), 2), width=1, norm="batch")
    variables, out = against_by_hand(network, (28, 28, 1), by_hand, True)
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), variables["batch_stats"],
                           out.batch_stats)
    assert len(jax.tree.leaves(changed)) == 2 * 8 and all(jax.tree.leaves(changed))


@pytest.mark.parametrize("build,message", [
    (lambda: nets.vgg11(spec((28, 28, 3))), "28x28, expected at least 32x32"),
    (lambda: nets.vgg11(spec((27, 30, 1))), "27x30, expected at least 28x28"),
    (lambda: nets.alexnet(spec((7, 8, 3))), "7x8, expected at least 8x8"),
    (lambda: nets.vgg11(spec((32, 32, 3)), norm="instnce"), "instance"),
    (lambda: nets.vgg11(spec((32, 32, 3)), width=0), "width is 0"),
    (lambda: nets.alexnet(spec((32, 32, 3)), width=True), "width is True"),
    (lambda: nets.alexnet(spec((8, 8, 3)), init_style="troch").init(jax.random.key(0)), "torch"),
], ids=["colour", "grey", "alexnet", "norm", "vgg_width", "alexnet_width", "init_style"])
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
