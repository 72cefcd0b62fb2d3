"""Images cut in patches that are each enlarged to full size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.data import denormalise, normalise, standardise
from dd_jax.errors import ConfigError
from dd_jax.synthetic import multi_formation, paste, pixels, stored_bytes
from dd_jax.types import SyntheticSet
from tests.laws import members

KEY = jax.random.key(1)


def stored(shape=(8, 6, 2), count=4, seed=0):
    images = np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
    return SyntheticSet(jnp.asarray(images), jnp.repeat(jnp.eye(2), count // 2, axis=0))


def decoded(head, start):
    return head.decode(head.init(jax.random.key(0), start), KEY)


def enlarged(patch, height, width):
    """Bilinear, half-pixel centres, clamped edges: one pixel at a time."""
    h, w, channels = patch.shape
    out = np.zeros((height, width, channels))
    for i in range(height):
        y = max((i + 0.5) * h / height - 0.5, 0.0)
        y0 = int(y)
        y1 = min(y0 + 1, h - 1)
        for j in range(width):
            x = max((j + 0.5) * w / width - 0.5, 0.0)
            x0 = int(x)
            x1 = min(x0 + 1, w - 1)
            top = (1 - (x - x0)) * patch[y0, x0] + (x - x0) * patch[y0, x1]
            bottom = (1 - (x - x0)) * patch[y1, x0] + (x - x0) * patch[y1, x1]
            out[i, j] = (1 - (y - y0)) * top + (y - y0) * bottom
    return out


def reference(images, factor, fill=0.0):
    """[M, F^2, H, W, C] by padding, cutting and enlarging."""
    count, height, width, channels = images.shape
    h, w = -(-height // factor), -(-width // factor)
    padded = np.full((count, factor * h, factor * w, channels), fill, np.float64)
    padded[:, :height, :width] = images
    return np.array([
        [enlarged(image[a * h : (a + 1) * h, b * w : (b + 1) * w], height, width)
         for a in range(factor) for b in range(factor)]
        for image in padded
    ])


@pytest.mark.parametrize("shape, factor", [((8, 6, 2), 2), ((7, 8, 1), 3), ((5, 5, 1), 1)])
def test_decoder_against_loops(shape, factor):
    start = stored(shape)
    fill = np.arange(1, shape[-1] + 1) / 2.0
    found = decoded(multi_formation(pixels(), factor=factor, fill=fill), start)
    expected = reference(np.asarray(start.images, np.float64), factor, fill)
    assert found.images.dtype == jnp.float32
    np.testing.assert_allclose(found.images, expected.reshape(-1, *shape), atol=2e-6)
    np.testing.assert_array_equal(found.labels, np.repeat(start.labels, factor**2, axis=0))


def test_decoder_against_the_resizing_of_jax():
    start = stored()
    found = decoded(multi_formation(pixels(), factor=2), start)
    patch = start.images[1, 4:, :3]
    expected = jax.image.resize(patch, (8, 6, 2), "bilinear", antialias=False)
    np.testing.assert_allclose(found.images[4 + 2], expected, atol=2e-6)


def test_multi_is_the_union_of_all_factors_image_after_image():
    start = stored((6, 6, 1))
    found = decoded(multi_formation(pixels(), factor=3, variant="multi"), start)
    images = np.asarray(start.images, np.float64)
    expected = np.concatenate([reference(images, f) for f in (1, 2, 3)], axis=1)
    assert expected.shape[1] == 14
    np.testing.assert_allclose(found.images, expected.reshape(-1, 6, 6, 1), atol=2e-6)
    np.testing.assert_array_equal(found.images[::14], start.images)
    assert np.argmax(found.labels, axis=1).tolist() == [0] * 28 + [1] * 28


def test_the_derivative_is_the_transpose():
    """<A x, y> = <x, A^T y>, for the linear part with fill 0."""
    start = stored((7, 8, 1))
    head = multi_formation(pixels(), factor=3)
    params = head.init(jax.random.key(0), start)
    weights = stored((7, 8, 1), count=36, seed=1).images

    def product(params):
        return jnp.vdot(weights, head.decode(params, KEY).images)

    value, gradient = jax.value_and_grad(product)(params)
    np.testing.assert_allclose(value, jnp.vdot(gradient["images"], start.images), rtol=1e-4)
    assert not jnp.any(gradient["labels"])


def test_patches_see_only_themselves():
    start = stored()
    other = start._replace(images=start.images.at[:, :4, :3].add(1.0))
    head = multi_formation(pixels(), factor=2)
    a, b = decoded(head, start).images, decoded(head, other).images
    np.testing.assert_allclose(b[::4] - a[::4], 1.0, atol=2e-6)
    for patch in (1, 2, 3):
        np.testing.assert_array_equal(a[patch::4], b[patch::4])


def test_what_the_other_parameterization_holds_stays():
    start = stored()._replace(learning_rate=jnp.float32(0.1), log_temperature=jnp.float32(0.5))
    plain, head = pixels(labels="soft"), multi_formation(pixels(labels="soft"))
    params = head.init(jax.random.key(0), start)
    assert stored_bytes(params) == sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(params))
    assert head.groups(params) == plain.groups(params)
    found = head.decode(params, KEY)
    np.testing.assert_allclose(found.learning_rate, 0.1, rtol=1e-6)
    assert found.log_temperature == 0.5


def test_model_space_is_as_good_as_pixels():
    normaliser = standardise(members.toy_data())
    start = SyntheticSet(jax.random.uniform(KEY, (2, 8, 8, 1)), jnp.eye(2))
    grey = normalise(normaliser, jnp.full((1, 1, 1), 0.5)).reshape(1)
    inside = multi_formation(pixels(), factor=3, fill=grey)
    outside = multi_formation(pixels(), factor=3, fill=0.5)
    model = start._replace(images=normalise(normaliser, start.images))
    np.testing.assert_allclose(denormalise(normaliser, decoded(inside, model).images),
                               decoded(outside, start).images, atol=1e-6)


@pytest.mark.parametrize("height, factor", [(8, 2), (7, 3)])
def test_pasting_takes_the_nearest_pixels(height, factor):
    images = np.asarray(stored((height, 6, 1), count=2 * factor**2).images)
    found = paste(jnp.asarray(images), factor=factor)
    h, w = -(-height // factor), -(-6 // factor)
    expected = np.zeros((2, height, 6, 1), np.float32)
    for m in range(2):
        for i in range(height):
            for j in range(6):
                source = images[m * factor**2 + (i // h) * factor + j // w]
                expected[m, i, j] = source[(i % h) * height // h, (j % w) * 6 // w]
    np.testing.assert_array_equal(found, expected)


def test_decoding_what_was_pasted_shows_each_image_again():
    """Linear ramps survive shrinking by means and enlarging, away from the edges."""
    slopes = np.random.default_rng(2).normal(size=(8, 2))
    place = np.arange(8)
    ramps = slopes[:, :1, None] * place[:, None] + slopes[:, 1:, None] * place
    ramps = jnp.asarray(ramps[..., None], jnp.float32)
    small = paste(ramps, factor=2, interpolation="bilinear")
    np.testing.assert_allclose(small[0, :4, :4], ramps[0].reshape(4, 2, 4, 2, 1).mean((1, 3)),
                               atol=1e-6)
    found = decoded(multi_formation(pixels(), factor=2), SyntheticSet(small, jnp.eye(2)))
    np.testing.assert_allclose(found.images[:, 1:7, 1:7], ramps[:, 1:7, 1:7], atol=1e-5)
    # Constant images survive whatever the interpolation, in their order.
    flat = jnp.broadcast_to(jnp.arange(8.0)[:, None, None, None], (8, 8, 8, 1))
    found = decoded(multi_formation(pixels(), factor=2),
                    SyntheticSet(paste(flat, factor=2), jnp.eye(2)))
    np.testing.assert_array_equal(found.images, flat)


def test_refusals():
    with pytest.raises(ConfigError, match="factor is 0"):
        multi_formation(pixels(), factor=0)
    with pytest.raises(ConfigError, match="variant"):
        multi_formation(pixels(), variant="mutli")
    with pytest.raises(ConfigError, match="fewer than 4 patches"):
        decoded(multi_formation(pixels(), factor=4), stored((5, 5, 1)))
    with pytest.raises(ConfigError, match="fill"):
        decoded(multi_formation(pixels(), fill=[0.0, 0.0, 0.0]), stored())
    with pytest.raises(ConfigError, match="multiple of 4"):
        paste(jnp.zeros((6, 4, 4, 1)), factor=2)
    with pytest.raises(ConfigError, match="interpolation"):
        paste(jnp.zeros((4, 4, 4, 1)), factor=2, interpolation="cubic")
