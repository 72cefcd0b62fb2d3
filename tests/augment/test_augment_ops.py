"""Every operation against a slow NumPy reference, and its gradient."""

from __future__ import annotations

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.augment import ops
from dd_jax.errors import ConfigError

_PATH = pathlib.Path(__file__).with_name("reference_numpy.py")
_SPEC = importlib.util.spec_from_file_location("augment_reference_numpy", _PATH)
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

SHAPES = [(28, 28, 1), (7, 9, 3), (32, 32, 3)]
BATCH = 2


def _params(name, count, shape):
    """Random params of one operation, [count, ...], as wide as any augmentation draws them."""
    rng = np.random.default_rng(len(name) + 10 * count)
    height, width, _ = shape

    def between(low, high):
        return rng.uniform(low, high, count).astype(np.float32)

    if name == "affine":
        return (rng.uniform(-1.0, 1.0, (count, 2, 3)).astype(np.float32),)
    return {
        "brightness": lambda: (between(-0.5, 0.5),),
        "saturation": lambda: (between(0.0, 2.0),),
        "contrast": lambda: (between(0.5, 1.5),),
        "flip": lambda: (np.array([True, False, True])[:count],),
        "shift": lambda: (rng.integers(-4, 5, count), rng.integers(-4, 5, count)),
        "cutout": lambda: (rng.integers(0, height + 1, count), rng.integers(0, width + 1, count)),
        "scale": lambda: (between(0.8, 1.3), between(0.8, 1.3)),
        "rotate": lambda: (between(-0.3, 0.3),),
        "zoom": lambda: (between(0.8, 1.25), between(-1.0, 1.0), between(-1.0, 1.0)),
        "translate": lambda: (between(-4.0, 4.0), between(-4.0, 4.0)),
    }[name]()


def _options(name, shape, align_corners):
    if name in ("affine", "rotate", "zoom"):
        return {"align_corners": align_corners}
    return {"size": (shape[0] // 2, shape[1] // 2)} if name == "cutout" else {}


def _images(shape, batch=BATCH, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, *shape)).astype(np.float32)


def _expected(name, images, params, options):
    per_image = [[p[i if len(p) > 1 else 0] for p in params] for i in range(len(images))]
    slow = getattr(reference, name)
    return np.stack([slow(x.astype(np.float64), *p, **options) for x, p in zip(images, per_image)])


def _run(name, images, params, options):
    """One compiled call, which is faster to test than its pieces one by one."""
    op = getattr(ops, name)
    compiled = jax.jit(lambda x, p: op(x, *p, **options))
    return compiled(jnp.asarray(images), [jnp.asarray(p) for p in params])


NAMES = sorted(ops.__all__)
CONVENTION = ["affine", "rotate", "zoom"]
CASES = [(n, False) for n in NAMES] + [(n, True) for n in CONVENTION]
# Both counts on a small odd shape and on the digits' shape; the widest shape once.
SHAPED = [(n, a, shape, count) for n, a in CASES for shape in SHAPES[:2] for count in (1, BATCH)]
SHAPED += [(n, False, SHAPES[2], BATCH) for n in NAMES]


@pytest.mark.parametrize("name,align_corners,shape,count", SHAPED)
def test_op_equals_the_reference(name, align_corners, shape, count):
    images, params = _images(shape), _params(name, count, shape)
    options = _options(name, shape, align_corners)
    found = _run(name, images, params, options)
    assert found.dtype == jnp.float32
    # Positions carry a float32 rounding error of some 1e-6 pixels, times the slope of noise.
    np.testing.assert_allclose(found, _expected(name, images, params, options), atol=5e-5)


@pytest.mark.parametrize("name,params", [
    ("affine", ([[[1.2, 0.1, 0.3], [0.1, 1.2, -0.2]]],)), ("rotate", ([0.3],)),
    ("zoom", ([0.8], [0.5], [-0.5])), ("translate", ([2.3], [-1.6])),
])
def test_the_border_goes_on_outside_where_it_is_asked_to(name, params):
    shape = (7, 9, 2)
    images, params = _images(shape), [np.float32(p) for p in params]
    options = {**_options(name, shape, False), "edge": True}
    found = _run(name, images, params, options)
    np.testing.assert_allclose(found, _expected(name, images, params, options), atol=5e-5)
    assert jnp.abs(found - _run(name, images, params, {**options, "edge": False})).max() > 0.1


def test_scale_is_the_same_under_both_conventions():
    image = _images((7, 9, 3))[0]
    centres, corners = (reference.scale(image, 1.2, 0.9, flag) for flag in (False, True))
    np.testing.assert_allclose(centres, corners, atol=1e-9)


def test_rotate_depends_on_the_convention_only_off_the_square():
    angle = jnp.array([0.25])
    for shape, same in [((8, 8, 1), True), ((7, 9, 1), False)]:
        images = jnp.asarray(_images(shape))
        centres, corners = (
            _run("rotate", images, [angle], {"align_corners": flag}) for flag in (False, True)
        )
        assert (jnp.abs(centres - corners).max() < 1e-5) == same


def test_zoom_and_translation_depend_on_the_convention():
    images, one = jnp.asarray(_images((8, 8, 1))), jnp.ones((1,))
    zooms = [ops.zoom(images, 1.2 * one, one, one, align_corners=flag) for flag in (False, True)]
    assert jnp.abs(zooms[0] - zooms[1]).max() > 1e-2
    matrix = jnp.array([[[1.0, 0.0, 0.25], [0.0, 1.0, 0.0]]])
    # A quarter of the half extent is one pixel of eight when pixels are placed by their centres.
    found = ops.affine(images, matrix)
    np.testing.assert_allclose(found[:, :, :-1], images[:, :, 1:], atol=1e-6)
    np.testing.assert_allclose(found[:, :, -1], 0.0, atol=1e-6)


def test_rotation_turns_in_the_stated_direction():
    # A dot right of the middle. The output at (X, Y) reads (cos X - sin Y, sin X + cos Y), so at
    # +90 degrees the dot is found by the output pixel with -Y = 1/2: it moves up, anticlockwise.
    dot = np.zeros((1, 9, 9, 1), np.float32)
    dot[0, 4, 6, 0] = 1.0
    for sign, row in [(1.0, 2), (-1.0, 6)]:
        turned = _run("rotate", dot, [[sign * np.pi / 2]], {})
        assert np.unravel_index(int(turned.argmax()), (9, 9)) == (row, 4)
        small = _run("rotate", dot, [[sign * np.deg2rad(15)]], {})[0, :, 6, 0]
        toward, away = (3, 5) if sign > 0 else (5, 3)
        assert small[toward] > 0.1 and small[away] < 1e-6


def test_shift_reads_from_the_stated_side_and_cuts_at_its_limit():
    images = jnp.asarray(_images((6, 5, 2)))
    found = ops.shift(images, jnp.array([2]), jnp.array([-1]), limit=(2, 1))
    np.testing.assert_array_equal(found[:, :4, 1:], images[:, 2:, :-1])
    assert not found[:, 4:].any() and not found[:, :, 0].any()
    beyond = ops.shift(images, jnp.array([5]), jnp.array([-3]), limit=(2, 1))
    np.testing.assert_array_equal(beyond, found)
    assert not ops.shift(images, jnp.array([6]), jnp.array([0])).any()


IDENTITIES = {
    "affine": lambda: (np.eye(2, 3)[None],),
    "brightness": lambda: (np.zeros(1),),
    "saturation": lambda: (np.ones(1),),
    "contrast": lambda: (np.ones(1),),
    "flip": lambda: (np.array([False]),),
    "shift": lambda: (np.zeros(1, int), np.zeros(1, int)),
    "cutout": lambda: (np.array([3]), np.array([3])),
    "scale": lambda: (np.ones(1), np.ones(1)),
    "rotate": lambda: (np.zeros(1),),
    "zoom": lambda: (np.ones(1), np.ones(1), -np.ones(1)),
    "translate": lambda: (np.zeros(1), np.zeros(1)),
}


@pytest.mark.parametrize("shape", [(7, 9, 3), (1, 1, 1)])
@pytest.mark.parametrize("name,align_corners", CASES)
def test_neutral_parameters_are_the_identity_bit_for_bit(name, align_corners, shape):
    images = _images(shape)
    options = _options(name, shape, align_corners) | ({"size": (0, 0)} if name == "cutout" else {})
    found = _run(name, images, IDENTITIES[name](), options)
    np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize(
    "name,count", [(n, BATCH) for n in NAMES] + [("affine", 1), ("shift", 1), ("zoom", 1)]
)
def test_gradient_equals_central_differences(name, count):
    shape = (5, 6, 2)
    with jax.enable_x64(True):
        images = jnp.asarray(_images(shape).astype(np.float64))
        target = jnp.asarray(_images(shape, seed=1).astype(np.float64))
        params = [jnp.asarray(p) for p in _params(name, count, shape)]
        options = _options(name, shape, False)

        def loss(x):
            return jnp.sum(jnp.sin(getattr(ops, name)(x, *params, **options)) * target)

        gradient = np.asarray(jax.jit(jax.grad(loss))(images)).ravel()
        basis = jnp.eye(images.size, dtype=jnp.float64).reshape(-1, *images.shape)
        step = 1e-5
        slope = jax.jit(jax.vmap(lambda e: loss(images + step * e) - loss(images - step * e)))
        difference = np.asarray(slope(basis)) / (2 * step)
        assert gradient.dtype == np.float64
    np.testing.assert_allclose(gradient, difference, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_finite_on_constant_images(name):
    shape = (4, 4, 3)
    params = [jnp.asarray(p) for p in _params(name, 2, shape)]
    options = _options(name, shape, False)
    op = getattr(ops, name)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(op(x, *params, **options) ** 2)))
    for value in (0.0, 1.0):
        assert jnp.isfinite(gradient(jnp.full((2, *shape), value))).all()


@pytest.mark.parametrize("name", ["affine", "brightness", "contrast", "zoom"])
def test_half_precision_images_keep_their_dtype(name):
    shape = (6, 6, 3)
    params, options = _params(name, 2, shape), _options(name, shape, False)
    images = jnp.asarray(_images(shape))
    exact = _run(name, images, params, options)
    found = _run(name, images.astype(jnp.bfloat16), params, options)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.08)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_are_refused(name):
    shape = (4, 4, 3)
    three = [jnp.asarray(np.repeat(p, 3, axis=0)) for p in _params(name, 1, shape)]
    options = _options(name, shape, False)
    op = getattr(ops, name)
    with pytest.raises(ConfigError, match="leading axis of 1 or 2"):
        op(jnp.zeros((2, *shape)), *three, **options)
    with pytest.raises(ConfigError, match="leading axis"):
        op(jnp.zeros((2, *shape)), *[jnp.asarray(p[0].ravel()[0]) for p in three], **options)
    with pytest.raises(ConfigError, match="floating"):
        op(jnp.zeros((3, *shape), jnp.uint8), *three, **options)
    with pytest.raises(ConfigError, match="expected"):
        op(jnp.zeros(shape), *three, **options)


def test_affine_refuses_a_matrix_of_another_shape():
    with pytest.raises(ConfigError, match="2, 3"):
        ops.affine(jnp.zeros((2, 4, 4, 1)), jnp.zeros((1, 3, 3)))
