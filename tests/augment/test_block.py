"""Resized crops and rolls against loops over pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.augment.block import crop_flip_roll, random_resized_crop, random_roll
from dd_jax.errors import ConfigError

SHAPE = (6, 9, 2)
IMAGES = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(np.float32)


def resized(image, top, left, height, width):
    """The window alone, interpolated with its border repeated."""
    window, (rows, cols, _) = image[top : top + height, left : left + width], image.shape
    out = np.zeros_like(image)
    for i in range(rows):
        for j in range(cols):
            y = np.clip((i + 0.5) * height / rows - 0.5, 0, height - 1)
            x = np.clip((j + 0.5) * width / cols - 0.5, 0, width - 1)
            for r in range(height):
                for c in range(width):
                    out[i, j] += max(0, 1 - abs(y - r)) * max(0, 1 - abs(x - c)) * window[r, c]
    return out


@pytest.mark.parametrize("count", [1, 4])
def test_a_crop_is_its_window_resized(count):
    crop = random_resized_crop(SHAPE, area=0.2)

    @jax.jit
    def both(key):
        params = crop.draw(key, count)
        return params, crop.apply(params, jnp.asarray(IMAGES))

    params, found = both(jax.random.key(0))
    for i in range(4):
        each = (int(params[n][i % count]) for n in ("top", "left", "height", "width"))
        np.testing.assert_allclose(found[i], resized(IMAGES[i], *each), atol=1e-5)


def test_windows_lie_inside_and_have_the_areas_and_aspects_asked_for():
    params = random_resized_crop((100, 100, 1), area=0.25).draw(jax.random.key(1), 2000)
    top, left, height, width = (np.asarray(params[n]) for n in ("top", "left", "height", "width"))
    assert (top >= 0).all() and (top + height <= 100).all() and (left + width <= 100).all()
    area, aspect = height * width / 1e4, width / height
    assert 0.23 < area.min() < 0.27 and 0.95 < area.max() and abs(area.mean() - 0.61) < 0.02
    assert 1.25 < aspect.max() < 1.36 and 0.73 < aspect.min() < 0.8
    assert (top + height == 100).any() and (top == 0).any()


def test_rolls():
    roll = random_roll(SHAPE, most=3)
    for count in (1, 4):
        params = roll.draw(jax.random.key(2), count)
        found = roll.apply(params, jnp.asarray(IMAGES))
        for i in range(4):
            steps = (int(params["rows"][i % count]), int(params["cols"][i % count]))
            np.testing.assert_array_equal(found[i], np.roll(IMAGES[i], steps, (0, 1)))
    many = roll.draw(jax.random.key(3), 200)
    assert set(np.asarray(many["rows"]).tolist()) == {0, 1, 2, 3}


def test_parts_can_be_left_out():
    bare = crop_flip_roll(SHAPE, area=1, roll=0, flip=False)
    np.testing.assert_array_equal(bare.apply(bare.draw(jax.random.key(0), 1), IMAGES), IMAGES)
    assert len(crop_flip_roll(SHAPE, area=0.5, roll=2).draw(jax.random.key(0), 1)) == 3


@pytest.mark.parametrize("change,name", [
    (dict(area=0.5, roll=7), "roll"), (dict(area=-1.0), "area"), (dict(roll=-1), "most"),
])
def test_wrong_settings_are_named(change, name):
    with pytest.raises(ConfigError, match=name):
        crop_flip_roll(SHAPE, **change)
