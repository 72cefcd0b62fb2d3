"""DSA: the Siamese rule, the strengths, the frequencies and the behaviour under jit and grad."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.augment import dsa, elements, ops
from dd_jax.errors import ConfigError

NAMES = ["color", "crop", "cutout", "flip", "scale", "rotate"]
STRATEGY = "_".join(NAMES)
NEUTRAL = {"brightness": 0.0, "crop": 0.0, "cutout": 0.0, "scale": 1.0, "rotate": 0.0}


def _images(shape, batch=4, seed=0):
    return jax.random.normal(jax.random.key(seed), (batch, *shape))


def _with_choice(params, choice):
    old, members = params
    return jnp.full_like(old, choice), members


@pytest.mark.parametrize("mode", ["single", "multiple"])
def test_same_params_do_the_same_to_both_batches(mode):
    shape = (8, 8, 3)
    augmentation = dsa(shape, mode=mode)
    draw, apply = jax.jit(augmentation.draw, static_argnums=1), jax.jit(augmentation.apply)
    real = _images(shape, 4)
    synthetic = real[1:3]
    for seed in range(12):
        params = draw(jax.random.key(seed), 1)
        together, apart = apply(params, real), apply(params, synthetic)
        np.testing.assert_allclose(together[1:3], apart, atol=1e-6)
        again = apply(draw(jax.random.key(seed), 1), real)
        np.testing.assert_array_equal(together, again)


def test_a_shared_draw_equals_the_same_draw_for_each_image():
    shape = (7, 9, 3)
    augmentation = dsa(shape)
    apply = jax.jit(augmentation.apply)
    shared = augmentation.draw(jax.random.key(3), 1)
    images = _images(shape, 3)
    for choice in range(len(NAMES)):
        one = _with_choice(shared, choice)
        each = jax.tree.map(lambda leaf: jnp.repeat(leaf, 3, axis=0), one)
        np.testing.assert_allclose(apply(one, images), apply(each, images), atol=1e-5)


def test_params_have_the_count_as_leading_axis_and_one_operation():
    augmentation = dsa((8, 8, 1))
    for count in (1, 5):
        params = augmentation.draw(jax.random.key(0), count)
        assert {leaf.shape for leaf in jax.tree.leaves(params)} == {(count,)}
        assert len(set(params[0].tolist())) == 1
        assert params[0].dtype == jnp.int32
    angles = params[1][NAMES.index("rotate")]["angle"]
    assert len(set(angles.tolist())) == 5
    other = augmentation.draw(jax.random.key(1), 5)[1][NAMES.index("rotate")]["angle"]
    assert not jnp.array_equal(angles, other)


def _by_hand(members, images):
    """What each operation of the full strategy makes of the images, in its order."""
    color, crop, cutout, flip, scale, rotate = members
    coloured = ops.brightness(images, color["offset"])
    coloured = ops.saturation(coloured, color["saturation"])
    return (
        ops.contrast(coloured, color["contrast"]),
        ops.shift(images, crop["rows"], crop["cols"]),
        ops.cutout(images, cutout["row"], cutout["col"], size=(4, 4)),
        ops.flip(images, flip["flag"]),
        ops.scale(images, scale["factor_y"], scale["factor_x"]),
        ops.rotate(images, rotate["angle"]),
    )


def test_each_name_of_the_strategy_runs_its_own_operation():
    shape = (8, 8, 3)
    augmentation = dsa(shape, strategy=STRATEGY)
    images = _images(shape)
    params = augmentation.draw(jax.random.key(5), 4)
    apply = jax.jit(augmentation.apply)
    for position, expected in enumerate(jax.jit(_by_hand)(params[1], images)):
        found = apply(_with_choice(params, position), images)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert jnp.abs(found - images).max() > 1e-3


def test_multiple_runs_all_in_the_given_order():
    shape = (6, 6, 1)
    images = _images(shape, 2)
    outputs = []
    for strategy in ("crop_rotate", "rotate_crop"):
        augmentation = dsa(shape, strategy=strategy, mode="multiple", crop=0.3, rotate=45.0)
        params = augmentation.draw(jax.random.key(1), 1)
        assert [sorted(p) for p in params] == (
            [["cols", "rows"], ["angle"]]
            if strategy == "crop_rotate"
            else [["angle"], ["cols", "rows"]]
        )
        crop, turn = {"rows": jnp.array([2]), "cols": jnp.array([-1])}, {"angle": jnp.array([0.7])}
        params = (crop, turn) if strategy == "crop_rotate" else (turn, crop)
        outputs.append(jax.jit(augmentation.apply)(params, images))
    shifted = ops.shift(images, jnp.array([2]), jnp.array([-1]))
    turned = jax.jit(ops.rotate)(shifted, jnp.array([0.7]))
    np.testing.assert_allclose(outputs[0], turned, atol=1e-6)
    assert jnp.abs(outputs[0] - outputs[1]).max() > 0.1


@pytest.mark.parametrize("strategy", ["crop", "cutout", "scale", "rotate"])
@pytest.mark.parametrize("shape", [(8, 8, 3), (7, 9, 1)])
def test_zero_strength_is_the_identity(strategy, shape):
    images = _images(shape)
    augmentation = dsa(shape, strategy=strategy, **NEUTRAL)
    for seed in range(3):
        params = augmentation.draw(jax.random.key(seed), 4)
        np.testing.assert_array_equal(jax.jit(augmentation.apply)(params, images), images)


def test_zero_brightness_adds_nothing():
    augmentation = dsa((4, 4, 3), strategy="color", **NEUTRAL)
    _, (params,) = augmentation.draw(jax.random.key(0), 50)
    assert not params["offset"].any()


@pytest.mark.parametrize("strategy", ["", "none"])
def test_no_strategy_is_the_identity(strategy):
    images = _images((4, 4, 1))
    augmentation = dsa((4, 4, 1), strategy=strategy)
    params = augmentation.draw(jax.random.key(0), 4)
    np.testing.assert_array_equal(augmentation.apply(params, images), images)


def test_each_operation_is_drawn_about_equally_often():
    augmentation = dsa((4, 4, 3))
    draw = jax.jit(jax.vmap(lambda key: augmentation.draw(key, 1)[0][0]))
    counts = np.bincount(draw(jax.random.split(jax.random.key(0), 6000)), minlength=6)
    # Standard deviation of a count is 29.
    assert len(counts) == 6 and abs(counts - 1000).max() < 130


def test_draws_fill_their_published_ranges():
    """Extremes over many draws, at the sides 28 (even cut) and 10 (odd cut)."""
    color, crop, cutout, flip, scale, rotate = (
        dsa((28, 10, 3), strategy=name).draw(jax.random.key(i), 5000)[1][0]
        for i, name in enumerate(NAMES)
    )

    def ends(values):
        return float(values.min()), float(values.max())

    np.testing.assert_allclose(ends(color["offset"]), (-0.5, 0.5), atol=0.01)
    np.testing.assert_allclose(ends(color["saturation"]), (0.0, 2.0), atol=0.01)
    np.testing.assert_allclose(ends(color["contrast"]), (0.5, 1.5), atol=0.01)
    assert ends(crop["rows"]) == (-4, 4) and ends(crop["cols"]) == (-1, 1)
    assert ends(cutout["row"]) == (0, 28) and ends(cutout["col"]) == (0, 9)
    assert abs(float(flip["flag"].mean()) - 0.5) < 0.03
    for axis in ("factor_y", "factor_x"):
        np.testing.assert_allclose(ends(scale[axis]), (1 / 1.2, 1.2), atol=0.01)
    np.testing.assert_allclose(np.degrees(ends(rotate["angle"])), (-15.0, 15.0), atol=0.1)
    counts = np.bincount(np.asarray(crop["rows"]) + 4)
    assert len(counts) == 9 and abs(counts - 5000 / 9).max() < 100
    assert abs(np.corrcoef(crop["rows"], crop["cols"])[0, 1]) < 0.06
    assert abs(np.corrcoef(scale["factor_y"], scale["factor_x"])[0, 1]) < 0.06


def test_one_compilation_serves_every_key():
    shape = (8, 8, 1)
    augmentation = dsa(shape)
    traces = []

    @jax.jit
    def step(key, images):
        traces.append(None)
        return augmentation.apply(augmentation.draw(key, 1), images)

    images = _images(shape)
    outputs = [step(jax.random.key(seed), images) for seed in range(10)]
    assert len(traces) == 1
    assert len({float(out.sum()) for out in outputs}) > 3


def test_vmap_over_draws_equals_a_loop():
    shape = (6, 6, 1)
    augmentation = dsa(shape, strategy="crop_flip_rotate")
    keys = jax.random.split(jax.random.key(2), 8)
    images = _images((3, *shape), 8)

    def run(key, batch):
        return augmentation.apply(augmentation.draw(key, 1), batch)

    loop = jax.lax.map(lambda pair: run(*pair), (keys, images))
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(keys, images), loop, atol=1e-6)


@pytest.mark.parametrize("mode,count", [("single", 1), ("multiple", 4)])
def test_gradient_is_finite_on_random_and_constant_images(mode, count):
    shape = (6, 6, 3)
    augmentation = dsa(shape, mode=mode)

    @jax.jit
    def gradient(key, images):
        params = augmentation.draw(key, count)
        return jax.grad(lambda x: jnp.sum(augmentation.apply(params, x) ** 2))(images)

    for seed in range(8):
        for images in (_images(shape), jnp.zeros((4, *shape)), jnp.ones((4, *shape))):
            found = gradient(jax.random.key(seed), images)
            assert jnp.isfinite(found).all()
        assert found.any()


@pytest.mark.parametrize("shape,align_corners", [((1, 1, 1), True), ((2, 2, 3), False)])
def test_tiny_images_work(shape, align_corners):
    augmentation = dsa(shape, mode="multiple", align_corners=align_corners)
    run = jax.jit(lambda key, x: augmentation.apply(augmentation.draw(key, 4), x))
    found = run(jax.random.key(0), _images(shape))
    assert found.shape == (4, *shape) and jnp.isfinite(found).all()


def test_the_grid_convention_reaches_the_rotation():
    shape = (6, 10, 1)
    outputs = []
    for align_corners in (False, True):
        augmentation = dsa(shape, strategy="rotate", align_corners=align_corners)
        params = augmentation.draw(jax.random.key(0), 4)
        outputs.append(jax.jit(augmentation.apply)(params, _images(shape)))
    assert jnp.abs(outputs[0] - outputs[1]).max() > 1e-3


@pytest.mark.parametrize(
    "settings,match",
    [
        ({"strategy": "color_corp"}, "did you mean 'crop'"),
        ({"strategy": "crop_crop"}, "twice"),
        ({"strategy": None}, "strategy is None"),
        ({"mode": "singel"}, "did you mean 'single'"),
        ({"crop": 1.5}, "crop is 1.5"),
        ({"cutout": -0.1}, "cutout is -0.1"),
        ({"scale": 0.8}, "scale is 0.8"),
        ({"rotate": float("nan")}, "rotate is nan"),
        ({"brightness": "much"}, "brightness is 'much'"),
    ],
)
def test_bad_settings_are_refused(settings, match):
    with pytest.raises(ConfigError, match=match):
        dsa((8, 8, 1), **settings)


@pytest.mark.parametrize("shape", [(28, 28), (0, 8, 1), (8.5, 8, 1), None, "abc"])
def test_bad_shapes_are_refused(shape):
    with pytest.raises(ConfigError, match="expected \\(H, W, C\\)"):
        dsa(shape)


def test_bad_counts_and_images_are_refused():
    augmentation = dsa((8, 8, 1))
    for count in (0, -1, 2.0, True, None):
        with pytest.raises(ConfigError, match="count is"):
            augmentation.draw(jax.random.key(0), count)
    params = augmentation.draw(jax.random.key(0), 3)
    with pytest.raises(ConfigError, match="leading axis of 1 or 4"):
        augmentation.apply(params, jnp.zeros((4, 8, 8, 1)))
    with pytest.raises(ConfigError, match="expected \\[B, 8, 8, 1\\]"):
        augmentation.apply(params, jnp.zeros((3, 9, 8, 1)))
    with pytest.raises(ConfigError, match="uint8"):
        augmentation.apply(params, jnp.zeros((3, 8, 8, 1), jnp.uint8))


def test_an_element_reads_its_params_within_float_rounding():
    """The largest float32 below 1 must not fall outside the integer range."""
    top = jnp.array([1.0 - 2.0**-24], jnp.float32)
    for high in (0, 1, 4, 27, 28, 223):
        assert int(elements._integer(top, -high, high)[0]) == high
        assert int(elements._integer(jnp.zeros(1), -high, high)[0]) == -high
