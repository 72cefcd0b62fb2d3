"""Composition, the choice of one, FRePo's set of operations and the table of names."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.augment import (
    by_name,
    compose,
    dsa,
    elements,
    frepo_augmentation,
    identity,
    one_of,
    one_per_image,
    ops,
    rcig_augmentation,
)
from dd_jax.errors import ConfigError
from dd_jax.types import Augmentation

SHAPE = (8, 8, 3)


def _images(shape=SHAPE, batch=4):
    return jax.random.normal(jax.random.key(7), (batch, *shape))


def _affine_pixel(scale, offset):
    """A made-up augmentation without randomness: scale * x + offset."""
    return Augmentation(
        lambda key, count: {"scale": jnp.full((count,), scale)},
        lambda params, images: images * params["scale"][:, None, None, None] + offset,
    )


def test_identity_returns_the_images_and_checks_a_given_shape():
    images = _images()
    for augmentation in (identity(), identity(SHAPE), compose()):
        params = augmentation.draw(jax.random.key(0), 1)
        assert jax.tree.leaves(params) == []
        np.testing.assert_array_equal(augmentation.apply(params, images), images)
    with pytest.raises(ConfigError, match="expected \\[B, 4, 4, 1\\]"):
        identity((4, 4, 1)).apply((), images)


def test_compose_applies_the_first_one_first():
    images = _images()
    both = compose(_affine_pixel(2.0, 1.0), _affine_pixel(3.0, 0.0))
    found = both.apply(both.draw(jax.random.key(0), 1), images)
    np.testing.assert_allclose(found, 3 * (2 * images + 1), rtol=1e-6)


def test_compose_draws_its_members_independently():
    one = elements.random_rotation(SHAPE, degrees=90.0)
    first, second = compose(one, one).draw(jax.random.key(0), 200)
    assert abs(np.corrcoef(first["angle"], second["angle"])[0, 1]) < 0.3


def test_one_of_runs_only_the_chosen_one():
    ran = []

    def spy(name):
        def apply(params, images):
            jax.debug.callback(lambda: ran.append(name))
            return images + name

        return Augmentation(lambda key, count: (), apply)

    augmentation = one_of(spy(1.0), spy(2.0))
    run = jax.jit(lambda key, x: augmentation.apply(augmentation.draw(key, 1), x))
    images, seen = jnp.zeros((1, 2, 2, 1)), []
    for seed in range(8):
        seen.append(float(run(jax.random.key(seed), images)[0, 0, 0, 0]))
    jax.effects_barrier()
    assert ran == seen and set(seen) == {1.0, 2.0}


def test_members_that_are_not_augmentations_are_refused():
    with pytest.raises(ConfigError, match="argument 1 is function"):
        compose(identity(), dsa)
    with pytest.raises(ConfigError, match="argument 0 is str"):
        one_of("dsa")
    with pytest.raises(ConfigError, match="no augmentation to choose from"):
        one_of()


def test_frepo_draws_its_ranges():
    choice, members = frepo_augmentation((28, 28, 3)).draw(jax.random.key(0), 5000)
    colour, zoom, turn, shift, cut, flip = members

    def ends(values):
        return float(values.min()), float(values.max())

    np.testing.assert_allclose(ends(colour["offset"]), (-0.25, 0.25), atol=0.01)
    for factor in (colour["saturation"], colour["contrast"], zoom["factor"]):
        # Log-uniform: as often below 1 as above it.
        assert abs(float((factor < 1).mean()) - 0.5) < 0.03
    for name in ("saturation", "contrast"):
        np.testing.assert_allclose(ends(jnp.log(colour[name])), (-0.25, 0.25), atol=0.01)
    np.testing.assert_allclose(ends(zoom["factor"]), (0.8, 1.25), atol=0.01)
    np.testing.assert_allclose(ends(zoom["place_x"]), (-1.0, 1.0), atol=0.01)
    np.testing.assert_allclose(np.degrees(ends(turn["angle"])), (-15.0, 15.0), atol=0.1)
    np.testing.assert_allclose(ends(shift["rows"]), (-3.5, 3.5), atol=0.02)
    assert ends(cut["row"]) == (3, 24)  # a square of 7 from row 0 to row 27
    assert abs(float(flip["flag"].mean()) - 0.5) < 0.03
    assert len(set(choice.tolist())) == 1


@pytest.mark.parametrize("flip,members", [(True, 6), (False, 5)])
def test_frepo_chooses_each_operation_about_equally_often(flip, members):
    augmentation = frepo_augmentation(SHAPE, flip=flip)
    draw = jax.jit(jax.vmap(lambda key: augmentation.draw(key, 1)[0][0]))
    counts = np.bincount(draw(jax.random.split(jax.random.key(1), 3000)), minlength=members)
    # Standard deviation of a count is at most 22.
    assert len(counts) == members and abs(counts - 3000 / members).max() < 100


def _by_hand(members, images):
    """What each of FRePo's operations makes of the images, in the order of its members."""
    colour, zoom, turn, shift, cut, flip = members
    coloured = ops.brightness(images, colour["offset"])
    coloured = ops.contrast(coloured, colour["contrast"])
    return (
        ops.saturation(coloured, colour["saturation"]),
        ops.zoom(images, zoom["factor"], zoom["place_y"], zoom["place_x"], edge=True),
        ops.rotate(images, turn["angle"], edge=True),
        ops.translate(images, shift["rows"], shift["cols"], edge=True),
        ops.cutout(images, cut["row"], cut["col"], size=(2, 2)),
        ops.flip(images, flip["flag"]),
    )


def test_frepo_applies_the_operation_it_chose_to_every_image():
    augmentation = frepo_augmentation(SHAPE)
    images = _images()
    choice, members = augmentation.draw(jax.random.key(2), 4)
    apply = jax.jit(augmentation.apply)
    for position, expected in enumerate(jax.jit(_by_hand)(members, images)):
        found = apply((jnp.full_like(choice, position), members), images)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_frepo_never_shows_what_is_no_part_of_the_image():
    """Around an image with a constant border, zoom, rotation and shift show that border."""
    shape = (12, 12, 1)
    _, members = frepo_augmentation(shape).draw(jax.random.key(4), 64)
    inside = 0.5 + jax.random.uniform(jax.random.key(5), (64, 6, 6, 1))
    images = jnp.pad(inside, ((0, 0), (3, 3), (3, 3), (0, 0)), constant_values=0.5)
    _, zoomed, turned, shifted, _, _ = jax.jit(_by_choice(shape))(members, images)
    for found in (zoomed, turned, shifted):
        assert 0.5 - 1e-5 < float(found.min()) and float(found.max()) < 1.5 + 1e-5
        assert jnp.abs(found - images).max() > 0.1
    np.testing.assert_allclose(turned[:, 0], 0.5, atol=1e-5)  # no zeros in the corners


def _by_choice(shape):
    augmentation = frepo_augmentation(shape)

    def run(members, images):
        choice = jnp.zeros(len(images), jnp.int32)
        return [augmentation.apply((choice + i, members), images) for i in range(len(members))]

    return run


def test_frepo_s_operations_at_fixed_params():
    """Worked out by hand on the ramp 0, 1, 2, 3 and on a square of ones."""
    ramp = jnp.broadcast_to(jnp.arange(4.0)[None, None, :, None], (1, 4, 4, 1))
    one, zero = jnp.ones(1), jnp.zeros(1)
    _, drawn = frepo_augmentation((4, 4, 1)).draw(jax.random.key(0), 1)
    members = list(drawn)
    members[0] = {"offset": 0.5 * one, "contrast": 2.0 * one, "saturation": 3.0 * one}
    members[1] = {"factor": 0.8 * one, "place_y": zero, "place_x": zero}
    members[2] = {"angle": jnp.pi / 2 * one}
    members[3] = {"rows": 1.5 * one, "cols": -0.25 * one}
    members[4] = {"row": 2 * one, "col": 3 * one}
    members[5] = {"flag": one > 0}
    found = jax.jit(_by_choice((4, 4, 1)))(tuple(members), ramp)
    rows = [[-1, 1, 3, 5], [0, 0.875, 2.125, 3], None, [0, 0.75, 1.75, 2.75], None, [3, 2, 1, 0]]
    for image, row in zip(found, rows):
        if row is not None:
            np.testing.assert_allclose(image[0, :, :, 0], [row] * 4, atol=1e-5)
    # The ramp runs downwards or upwards now; the cut takes one pixel of sixteen.
    np.testing.assert_allclose(found[2][0, :, :, 0], np.repeat([[3], [2], [1], [0]], 4, 1),
                               atol=1e-5)
    cut = np.broadcast_to(np.arange(4.0), (4, 4)).copy()
    cut[2, 3] = 0
    np.testing.assert_allclose(found[4][0, :, :, 0], cut)


@pytest.mark.parametrize("grey", [False, True])
def test_rcig_draws_an_operation_for_each_image(grey):
    """Grey images have four of them: no colour and no mirror."""
    shape = (8, 8, 1 if grey else 3)
    augmentation = rcig_augmentation(shape, colour=not grey, flip=not grey)
    images = _images(shape, batch=48)
    params = augmentation.draw(jax.random.key(0), 48)
    choice, members = params
    names = [sorted(drawn)[0] for drawn in members]
    always = ["factor", "angle", "cols", "col"]
    assert names == (always if grey else ["contrast", *always, "flag"])
    assert set(choice.tolist()) == set(range(len(names)))  # within one draw
    found = jax.jit(augmentation.apply)(params, images)
    whole = frepo_augmentation(shape)

    @jax.jit
    def alone(position):  # that operation on all images, by FRePo's own switch
        drawn = members if not grey else (whole.draw(jax.random.key(1), 48)[1][0], *members,
                                          whole.draw(jax.random.key(1), 48)[1][-1])
        return whole.apply((jnp.full(48, position + grey, jnp.int32), drawn), images)

    for position in range(len(names)):
        mine = np.asarray(choice) == position
        np.testing.assert_allclose(found[mine], alone(position)[mine], atol=1e-5)


def test_one_per_image_shares_a_single_draw():
    both = one_per_image(_affine_pixel(2.0, 0.0), _affine_pixel(3.0, 0.0))
    images = _images()
    factors = {round(float((both.apply(both.draw(jax.random.key(seed), 1), images) / images).max()))
               for seed in range(8)}
    assert factors == {2, 3}
    with pytest.raises(ConfigError, match="one_per_image has no augmentation"):
        one_per_image()


@pytest.mark.parametrize(
    "name,members,flips",
    [("dsa", 6, 1), ("dsa_digits", 5, 0), ("frepo", 6, 1), ("frepo_digits", 5, 0),
     ("rcig", 6, 1), ("rcig_digits", 4, 0)],
)
def test_a_digit_set_is_never_mirrored(name, members, flips):
    _, drawn = by_name(name, (8, 8, 1)).draw(jax.random.key(0), 1)
    assert len(drawn) == members
    assert sum("flag" in params for params in drawn) == flips


@pytest.mark.parametrize("name", ["none", "dsa_digits", "frepo", "rcig"])
def test_gradients_are_finite_on_constant_images(name):
    shape = (6, 5, 1)
    augmentation = by_name(name, shape)

    @jax.jit
    def gradient(params, images):
        return jax.grad(lambda x: jnp.sum(augmentation.apply(params, x) ** 2))(images)

    params = augmentation.draw(jax.random.key(0), 3)
    for choice in range(6):
        if params:
            params = (jnp.full_like(params[0], choice), params[1])
        assert jnp.isfinite(gradient(params, jnp.ones((3, *shape)))).all()


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="unknown augmentation 'frepoo'; did you mean 'frepo"):
        by_name("frepoo", SHAPE)
    with pytest.raises(ConfigError, match="expected \\(H, W, C\\)"):
        by_name("none", (8, 8))
