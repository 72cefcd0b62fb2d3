"""ResNet-50, WRN-16-2, MobileNetV2 and ViT-tiny: sizes of the papers, and each by hand."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import backend, nets
from dd_jax.errors import ConfigError
from dd_jax.nets.convolution import depthwise3x3
from dd_jax.nets.mobilenet import channels
from dd_jax.nets.record import from_linen
from dd_jax.nets.resnet import ResNet
from dd_jax.nets.vit import patches
from dd_jax.types import DataSpec


def spec(shape, classes=10):
    return DataSpec("toy", shape, classes, tuple(str(i) for i in range(classes)))


def shapes_of(network, shape):
    variables = jax.eval_shape(network.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((5, *shape), jnp.float32)
    return variables, jax.eval_shape(network.apply, variables, images)


def native(x, kernel, stride=1, groups=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), 2 * [(kernel.shape[0] // 2,) * 2], feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"))


def standardised(x):
    """What new batch normalisation does to a batch in training."""
    return (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (1, 7, 5, 2)])
def test_depthwise_is_the_native_one_in_value_and_gradient(shape, stride, monkeypatch):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, shape[-1])), jnp.float32)
    expected, pull = jax.vjp(
        lambda x, k: native(x, k[:, :, None], stride, shape[-1]), x, kernel)
    ahead = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    for on_cpu in (True, False):
        monkeypatch.setattr(backend, "on_cpu", lambda on_cpu=on_cpu: on_cpu)
        value, ours = jax.vjp(lambda x, k: depthwise3x3(x, k, stride=stride), x, kernel)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(ours(ahead), pull(ahead), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_depthwise_equals_loops():
    rng = np.random.default_rng(1)
    x, kernel = rng.normal(size=(1, 5, 4, 2)), rng.normal(size=(3, 3, 2))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for stride in (1, 2):
        expected = np.array([[(padded[0, i : i + 3, j : j + 3] * kernel).sum((0, 1))
                              for j in range(0, 4, stride)] for i in range(0, 5, stride)])
        ours = depthwise3x3(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32),
                            stride=stride)
        np.testing.assert_allclose(ours[0], expected, atol=1e-5)


# Kernels k k Ci Co, normalisations 2 Co, the dense layer (P + 1) K, one after another.
def bottleneck(ci, width, skip):
    co = 4 * width
    return ci * width + 2 * width + 9 * width**2 + 2 * width + width * co + 2 * co + (
        ci * co + 2 * co if skip else 0)


RESNET50 = 27 * 64 + 2 * 64 + sum(
    bottleneck(4 * width if block else first, width, block == 0)
    for first, width, count in [(64, 64, 3), (256, 128, 4), (512, 256, 6), (1024, 512, 3)]
    for block in range(count)) + 2049 * 10
WRN = 27 * 16 + sum(
    2 * ci + 9 * ci * co + 2 * co + 9 * co * co + (ci * co if ci != co else 0)
    for ci, co in [(16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
) + 2 * 128 + 129 * 10


def inverted(ci, co, expansion):
    wide = expansion * ci
    return (ci * wide + 2 * wide if expansion > 1 else 0) + 9 * wide + 2 * wide + (
        wide * co + 2 * co)


GROUPS = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]


def mobilenet_parameters():
    total, ci = 27 * 32 + 2 * 32, 32
    for expansion, co, count in GROUPS:
        for _ in range(count):
            total, ci = total + inverted(ci, co, expansion), co
    return total + 320 * 1280 + 2 * 1280 + 1281 * 10


VIT = 49 * 192 + 192 + 65 * 192 + 12 * (
    4 * 192 + 193 * 576 + 193 * 192 + 193 * 768 + 769 * 192) + 2 * 192 + 193 * 10


@pytest.mark.parametrize("name,expected,features,taps", [
    ("resnet50", RESNET50, 2048, [(32, 256), (16, 512), (8, 1024), (4, 2048)]),
    ("wrn16_2", WRN, 128, [(32, 32), (16, 64), (8, 128)]),
    ("mobilenet_v2", mobilenet_parameters(), 1280, [(32, 24), (16, 32), (8, 96), (4, 320)]),
    ("vit_tiny", VIT, 192, 4 * [(8, 192)]),
])
def test_parameters_and_maps_of_the_papers(name, expected, features, taps):
    network = nets.by_name(name, spec((32, 32, 3)))
    variables, out = shapes_of(network, (32, 32, 3))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == expected
    assert out.logits.shape == (5, 10) and out.features.shape == (5, features)
    assert [tap.shape[1:] for tap in out.taps] == [(side, side, c) for side, c in taps]
    assert network.name == name


@pytest.mark.parametrize("name,width,last", [
    ("resnet50", 2, (4, 4, 64)), ("wrn16_2", 3, (7, 7, 12)), ("mobilenet_v2", 8, (4, 4, 80)),
    ("vit_tiny", 8, (7, 8, 8))])
@pytest.mark.parametrize("channels", [1, 3])
def test_ragged_and_grey_images(name, width, last, channels):
    shape = (28, 29, channels) if name == "vit_tiny" else (28, 27, channels)
    _, out = shapes_of(nets.by_name(name, spec(shape, 3), width=width), shape)
    assert out.taps[-1].shape == (5, *last) and out.logits.shape == (5, 3)


@pytest.mark.parametrize("name,width,layers", [
    ("resnet50", 1, 53), ("wrn16_2", 2, 13), ("mobilenet_v2", 8, 52), ("vit_tiny", 8, 0)])
def test_every_batch_normalisation_tells_its_statistics(name, width, layers):
    network = nets.by_name(name, spec((8, 8, 1), 2), width=width)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    found = jax.eval_shape(network.norm_inputs, variables, jnp.ones((3, 8, 8, 1)))[1]
    kept = jax.tree.leaves(variables.get("batch_stats", {}))
    assert len(found) == layers and len(kept) == 2 * layers
    assert sorted(m.shape for m, _ in found) == sorted(v.shape for v in kept[::2])


def against_by_hand(network, shape, by_hand):
    """Asserts that the logits in training are those of `by_hand`, and statistics were kept."""

    @jax.jit
    def run(key):
        variables = network.init(key)
        x = jax.random.normal(jax.random.fold_in(key, 1), (4, *shape))
        features = by_hand(variables["params"], x)
        head = variables["params"]["head"]
        return (variables, network.apply(variables, x, True),
                (features, features @ head["kernel"] + head["bias"]))

    variables, out, (features, logits) = run(jax.random.key(0))
    np.testing.assert_allclose(out.features, features, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(out.logits, logits, rtol=2e-3, atol=2e-4)
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), variables["batch_stats"],
                           out.batch_stats)
    assert all(jax.tree.leaves(changed))


def test_a_short_bottleneck_network_is_the_composition_it_says():
    def by_hand(params, x):
        def normed(x, name, stride=1):
            return standardised(native(x, params[name]["kernel"], stride))

        x = jnp.maximum(normed(x, "stem"), 0)
        for stage, stride in ((0, 1), (1, 2)):
            for block in range(2):
                name, s = f"stage{stage}_block{block}", stride if block == 0 else 1
                y = jnp.maximum(normed(x, f"{name}_conv0"), 0)
                y = jnp.maximum(normed(y, f"{name}_conv1", s), 0)
                y = normed(y, f"{name}_conv2")
                if block == 0:
                    x = standardised(native(x[:, ::s, ::s], params[f"{name}_skip"]["kernel"]))
                x = jnp.maximum(x + y, 0)
        return x.mean((1, 2))

    module = ResNet((2, 2), 2, 3, bottleneck=True)
    against_by_hand(from_linen(module, (7, 6, 2), name="short"), (7, 6, 2), by_hand)


def test_wrn_is_the_composition_it_says():
    def by_hand(params, x):
        x = native(x, params["stem"]["kernel"])
        for stage in range(3):
            for block in range(2):
                name, s = f"stage{stage}_block{block}", 1 + (stage > 0 and block == 0)
                y = jnp.maximum(standardised(x), 0)
                x = native(y[:, ::s, ::s], params[f"{name}_skip"]["kernel"]) if block == 0 else x
                y = jnp.maximum(standardised(native(y, params[f"{name}_conv0"]["kernel"], s)), 0)
                x = x + native(y, params[f"{name}_conv1"]["kernel"])
        return jnp.maximum(standardised(x), 0).mean((1, 2))

    against_by_hand(nets.wrn16_2(spec((8, 9, 1), 3), width=4), (8, 9, 1), by_hand)


def test_mobilenet_is_the_composition_it_says():
    def by_hand(params, x):
        def normed(x, name, stride=1, groups=1):
            return standardised(native(x, params[name]["kernel"], stride, groups))

        x = jnp.clip(normed(x, "stem"), 0, 6)
        numbers = [0, 0, 0, 0]
        for group, (expansion, _, count) in enumerate(GROUPS):
            stage = [0, 0, 1, 2, 2, 3, 3][group]
            for _ in range(count):
                name = f"stage{stage}_block{numbers[stage]}"
                s = 2 if stage and numbers[stage] == 0 else 1
                numbers[stage] += 1
                y = x if expansion == 1 else jnp.clip(normed(x, f"{name}_widen"), 0, 6)
                y = jnp.clip(normed(y, f"{name}_depthwise", s, y.shape[-1]), 0, 6)
                y = normed(y, f"{name}_narrow")
                x = x + y if x.shape == y.shape else y
        assert numbers == [3, 3, 7, 4]
        return jnp.clip(normed(x, "last"), 0, 6).mean((1, 2))

    against_by_hand(nets.mobilenet_v2(spec((16, 17, 1), 3), width=8), (16, 17, 1), by_hand)


def test_channels_are_multiples_of_eight():
    for wanted in np.linspace(1, 400, 77):
        found = channels(wanted)
        assert found % 8 == 0 and found >= max(8, 0.9 * wanted) and found - wanted < 8


def _erf(x):
    return np.vectorize(math.erf)(x)


def _layer_norm(x, layer):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * layer["scale"] + layer["bias"]


def _vit_by_numpy(params, images, heads):
    """Class tokens of a ViT, image after image, patch after patch, head after head."""
    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    features = []
    for image in images:
        rows, cols = (-(-side // 4) for side in image.shape[:2])
        whole = np.zeros((4 * rows, 4 * cols, image.shape[-1]))
        whole[: image.shape[0], : image.shape[1]] = image
        tokens = [params["token"][0, 0]]
        for i in range(rows):
            for j in range(cols):
                square = whole[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(-1)
                tokens.append(dense(square, params["patches"]))
        x = np.array(tokens) + params["positions"][0]
        for name in sorted(n for n in params if n.startswith("block")):
            block = params[name]
            y = dense(_layer_norm(x, block["norm0"]), block["query_key_value"])
            query, key, value = np.split(y, 3, axis=1)
            size = query.shape[1] // heads
            parts = []
            for h in range(heads):
                own = slice(h * size, (h + 1) * size)
                scores = query[:, own] @ key[:, own].T / np.sqrt(size)
                shares = np.exp(scores - scores.max(1, keepdims=True))
                parts.append(shares / shares.sum(1, keepdims=True) @ value[:, own])
            x = x + dense(np.concatenate(parts, axis=1), block["attention"])
            y = dense(_layer_norm(x, block["norm1"]), block["mlp0"])
            x = x + dense(0.5 * y * (1 + _erf(y / np.sqrt(2))), block["mlp1"])
        features.append(_layer_norm(x, params["last_norm"])[0])
    return np.array(features)


@pytest.mark.parametrize("width,heads", [(8, 1), (128, 2)])
def test_vit_is_the_composition_it_says(width, heads):
    network = nets.vit_tiny(spec((6, 9, 2), 3), width=width, blocks=2)
    variables = network.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 6, 9, 2))
    # Not as at the start, where attention is flat, biases are 0 and scales 1.
    params = jax.tree.map(lambda x: np.asarray(x, np.float64) + 0.3 * rng.normal(size=x.shape),
                          variables["params"])
    moved = {"params": jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)}
    out = network.apply(moved, jnp.asarray(images, jnp.float32))
    expected = _vit_by_numpy(params, images, heads)
    np.testing.assert_allclose(out.features, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        out.logits, expected @ params["head"]["kernel"] + params["head"]["bias"], rtol=1e-3,
        atol=1e-3 * np.abs(out.logits).max())
    assert [tap.shape for tap in out.taps] == 2 * [(2, 2, 3, width)]


def test_patches_are_squares_of_pixels():
    x = np.random.default_rng(0).normal(size=(1, 5, 7, 3))
    found = patches(jnp.asarray(x, jnp.float32), 2)
    assert found.shape == (1, 3, 4, 12)
    np.testing.assert_allclose(found[0, 1, 2], x[0, 2:4, 4:6].reshape(-1), rtol=1e-6)
    corner = np.zeros((2, 2, 3))
    corner[0, 0] = x[0, 4, 6]
    np.testing.assert_allclose(found[0, 2, 3], corner.reshape(-1), rtol=1e-6)


@pytest.mark.parametrize("name,change,message", [
    *((name, change, message) for name in ("resnet50", "wrn16_2", "mobilenet_v2")
      for change, message in (({"norm": "bach"}, "batch"), ({"width": 0}, "width is 0"))),
    ("vit_tiny", {"width": 100}, "width is 100.*width=128"), ("vit_tiny", {"blocks": 0}, "blocks"),
    ("vit_tiny", {"width": 0}, "width is 0"),
], ids=str)
def test_bad_settings_are_refused(name, change, message):
    with pytest.raises(ConfigError, match=message):
        nets.by_name(name, spec((8, 8, 1), 2), **change)
    if name != "vit_tiny":
        with pytest.raises(ConfigError, match="4x4"):
            nets.by_name(name, spec((4, 4, 1), 2))
