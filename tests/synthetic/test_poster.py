"""Images as overlapping patches of one poster, labels by place."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax.data import denormalise, identity, standardise, zca
from dd_jax.errors import ConfigError
from dd_jax.synthetic import patch_counts, poster, poster_image, poster_shape, stored_bytes
from dd_jax.synthetic import poster_layout as layout
from dd_jax.transforms.pixel_space import kept_between
from dd_jax.types import SyntheticSet
from tests.laws import members

KEY = jax.random.key(1)
IMAGE = (4, 5, 2)
GEOMETRY = dict(shape=(7, 13), image_shape=IMAGE, patches=(3, 4), class_grid=(2, 3))
ORDER = np.array([[4, 0, 2], [1, 5, 3]])


def start(dtype=np.float32):
    return SyntheticSet(jnp.ones((6, *IMAGE), dtype), jnp.eye(6, dtype=dtype))


def places(size, window, count):
    """Corners of windows in exact arithmetic: twice the place, halves to the even number."""
    found = []
    for i in range(count):
        double, over = divmod(2 * i * (size - window), max(count - 1, 1))
        low = double // 2
        exactly_half = double % 2 == 1 and over == 0
        found.append(low + (low % 2 if exactly_half else double % 2))
    return found


def boxes(shape, window, counts):
    """Windows (y, x) with x outermost."""
    ys, xs = (places(*line) for line in zip(shape, window, counts))
    return [(y, x) for x in xs for y in ys]


def fixed_reference(order, fractions):
    """Marks every pixel of every class area, then counts the marks in each patch."""
    (height, width), (h, w, _) = GEOMETRY["shape"], IMAGE
    marks = np.zeros((height, width, 6))
    for (i, y), (j, x) in itertools.product(enumerate(places(height, h, 2)),
                                            enumerate(places(width, w, 3))):
        marks[y : y + h, x : x + w, order[i, j]] += 1
    counts = np.array([marks[y : y + h, x : x + w].sum(axis=(0, 1))
                       for y, x in boxes((height, width), (h, w), (3, 4))])
    counts = counts if fractions else np.exp(counts)
    return counts / counts.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("fractions", [False, True])
def test_patches_and_fixed_labels_against_loops(fractions):
    with jax.enable_x64(True):
        head = poster(**GEOMETRY, order=ORDER.tolist(), fractions=fractions)
        params = head.init(jax.random.key(0), start(np.float64))
        found = head.decode(params, KEY)
        stored, images, labels = (np.asarray(x) for x in (params["poster"], *found[:2]))
    assert set(params) == {"poster"} and stored.shape == (7, 13, 2) and found.learning_rate is None
    expected = [stored[y : y + 4, x : x + 5] for y, x in boxes((7, 13), (4, 5), (3, 4))]
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_allclose(labels, fixed_reference(ORDER, fractions), atol=1e-15)
    assert len({tuple(row) for row in labels.round(12)}) > 6  # patches do straddle areas


def test_learned_labels_against_loops():
    with jax.enable_x64(True):
        head = poster(**GEOMETRY, order=ORDER, labels="learned", label_ipc=5)
        params = head.init(jax.random.key(0), start(np.float64))
        assert params["label_map"].shape == (4, 7, 6)
        noisy = np.random.default_rng(0).uniform(0, 2, (4, 7, 6))
        labels = np.asarray(head.decode({**params, "label_map": jnp.asarray(noisy)}, KEY).labels)
    size = (4 * 4 // 7, 5 * 7 // 13)
    sums = np.array([noisy[y : y + size[0], x : x + size[1]].sum(axis=(0, 1))
                     for y, x in boxes((4, 7), size, (3, 4))])
    np.testing.assert_allclose(labels, sums / sums.sum(axis=1, keepdims=True), atol=1e-15)


def test_a_label_map_starts_one_hot_by_area():
    head = poster(**GEOMETRY, order=ORDER, labels="learned")
    params = head.init(jax.random.key(0), start())
    np.testing.assert_array_equal(np.argmax(params["label_map"], axis=-1), ORDER)
    assert set(np.unique(params["label_map"])) == {0, 1}
    larger = layout.first_label_map((4, 7), ORDER).argmax(axis=-1)
    assert larger.tolist() == [[4, 4, 0, 0, 0, 2, 2]] * 2 + [[1, 1, 5, 5, 5, 3, 3]] * 2


def test_an_empty_label_map_gives_uniform_labels_and_finite_derivatives():
    head = poster(**GEOMETRY, labels="learned")
    params = head.init(jax.random.key(0), start())
    params["label_map"] = jnp.zeros_like(params["label_map"])
    value, gradient = jax.value_and_grad(
        lambda p: jnp.sum(head.decode(p, KEY).labels[:, 0] ** 2))(params)
    np.testing.assert_allclose(value, 12 / 36, rtol=1e-6)
    assert np.isfinite(gradient["label_map"]).all()


def test_a_map_that_is_kept_at_zero_or_above_gives_probabilities():
    head = poster(**GEOMETRY, labels="learned")
    params = head.init(jax.random.key(0), start())
    optimizer = optax.chain(optax.sgd(3.0), kept_between(0.0, jnp.inf))
    gradient = {"label_map": jax.random.normal(KEY, params["label_map"].shape)}
    updates, _ = optimizer.update(gradient, optimizer.init(gradient),
                                  {"label_map": params["label_map"]})
    params["label_map"] = params["label_map"] + updates["label_map"]
    assert params["label_map"].min() == 0  # not just above or below
    labels = head.decode(params, KEY).labels
    assert labels.min() >= 0
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)


def test_derivatives_of_overlapping_patches_by_central_differences():
    head = poster(**GEOMETRY, labels="learned", label_ipc=5)
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        params = head.init(jax.random.key(0), start(np.float64))
        params["label_map"] = jnp.asarray(rng.uniform(0.1, 1, params["label_map"].shape))
        image_weights = jnp.asarray(rng.normal(size=(12, *IMAGE)))
        label_weights = jnp.asarray(rng.normal(size=(12, 6)))

        @jax.jit
        def value(params):
            found = head.decode(params, KEY)
            return (jnp.sum(image_weights * found.images**3) +
                    jnp.sum(label_weights * found.labels**2))

        gradient = jax.jit(jax.grad(value))(params)
        for name, leaf in params.items():
            direction = jnp.asarray(rng.normal(size=leaf.shape))
            step = 1e-5
            ends = [value({**params, name: leaf + sign * step * direction}) for sign in (1, -1)]
            np.testing.assert_allclose(jnp.vdot(gradient[name], direction),
                                       (ends[0] - ends[1]) / (2 * step), rtol=1e-7)
        plain = jax.grad(lambda p: jnp.sum(head.decode(p, KEY).images))(params)["poster"]
    times = np.zeros((7, 13))
    for y, x in boxes((7, 13), (4, 5), (3, 4)):
        times[y : y + 4, x : x + 5] += 1
    assert times.max() > 4  # as often as a pixel is shown, so often it is moved
    np.testing.assert_allclose(plain, np.repeat(times[..., None], 2, axis=2), rtol=1e-12)


def test_the_start_blends_unit_areas_linearly():
    """Two areas of four columns on six: two columns of each alone, two of both."""
    head = poster(shape=(4, 6), image_shape=(4, 4, 3), patches=(1, 3), class_grid=(1, 2))
    given = SyntheticSet(jnp.zeros((2, 4, 4, 3)), jnp.eye(2))
    with jax.enable_x64(True):
        stored = np.asarray(head.init(jax.random.key(0), jax.tree.map(
            lambda x: x.astype(jnp.float64), given))["poster"])
        from dd_jax.synthetic.poster import _gaussian_areas
        areas = np.asarray(_gaussian_areas(jax.random.key(0), 2, (4, 4, 3), jnp.float64))
    np.testing.assert_allclose((areas**2).sum(axis=(1, 2, 3)), 1.0, rtol=1e-12)
    first, second = areas
    np.testing.assert_allclose(stored[:, :2], first[:, :2], atol=1e-15)
    np.testing.assert_allclose(stored[:, 4:], second[:, 2:], atol=1e-15)
    np.testing.assert_allclose(stored[:, 2], 0.75 * first[:, 2] + 0.25 * second[:, 0], atol=1e-15)
    np.testing.assert_allclose(stored[:, 3], 0.25 * first[:, 3] + 0.75 * second[:, 1], atol=1e-15)


def test_areas_of_unit_variance_are_those_of_norm_one_made_larger():
    plain, larger = (poster(**GEOMETRY, unit_variance=flag) for flag in (False, True))
    first, second = (head.init(jax.random.key(0), start())["poster"] for head in (plain, larger))
    np.testing.assert_allclose(second, np.sqrt(4 * 5 * 2) * first, rtol=1e-5)
    assert plain.record == larger.record  # a file holds what decodes it


def test_the_noise_is_a_quarter_of_the_least_distance_of_two_means():
    from dd_jax.synthetic.poster import _gaussian_areas

    # Means are sqrt(2 d) apart, so the noise has a variance of about d / 8 beside their 1: of
    # two areas of norm one, then, the means' share of the squares is 1 / (1 + d / 8).
    mean_key, _ = jax.random.split(jax.random.key(3))
    means = np.asarray(jax.random.normal(mean_key, (3, 48)))
    least = min(np.linalg.norm(means[i] - means[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    areas = np.asarray(_gaussian_areas(jax.random.key(3), 3, (4, 4, 3), jnp.float32)).reshape(3, 48)
    noise = np.asarray(jax.random.normal(jax.random.split(jax.random.key(3))[1], (3, 48)))
    expected = means + least / 4 * noise
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(areas, expected, atol=1e-6)


@pytest.mark.parametrize("size, area, count",
                         [(6, 4, 2), (20, 5, 4), (9, 7, 4), (5, 5, 1), (8, 6, 8), (9, 1, 4)])
def test_fades_cover_every_pixel_and_sum_to_one(size, area, count):
    (side, _) = layout.area_size((size, size), (area, area), (count, count))
    weights = layout.fades(size, side, count)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-12)
    assert (weights >= 0).all() and (weights.max(axis=1) > 0).all()


def test_areas_that_do_not_meet_are_spread():
    wide = poster(shape=(4, 30), image_shape=(4, 5, 2), patches=(1, 9), class_grid=(1, 3),
                  fractions=True)
    given = SyntheticSet(jnp.zeros((3, 4, 5, 2)), jnp.eye(3))
    params = wide.init(jax.random.key(0), given)
    assert (np.abs(params["poster"]).sum(axis=(0, 2)) > 0).all()
    labels = wide.decode(params, KEY).labels
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(labels)[[0, -1]], np.eye(3)[[0, 2]])


def test_cost_groups_and_rates():
    head = poster(**GEOMETRY, labels="learned")
    given = start()._replace(learning_rate=jnp.float32(0.1), log_temperature=jnp.ones(()))
    params = head.init(jax.random.key(0), given)
    assert stored_bytes(params) == 4 * (7 * 13 * 2 + 2 * 3 * 6 + 2)
    assert stored_bytes(params) == sum(np.asarray(leaf).nbytes for leaf in params.values())
    assert head.groups(params) == {
        "poster": "images", "label_map": "labels", "log_learning_rate": "learning_rate",
        "log_temperature": "temperature"}
    found = head.decode(params, KEY)
    np.testing.assert_allclose(found.learning_rate, 0.1, rtol=1e-6)
    assert found.log_temperature == 1
    few = poster(**{**GEOMETRY, "shape": (4, 5), "patches": (1, 1)})
    assert stored_bytes(few.init(KEY, start())) == 4 * 4 * 5 * 2  # one image for six classes


@pytest.mark.parametrize("ipc, image, grid, expected", [
    (0.9, (32, 32, 3), (2, 5), (60, 153)),
    (0.9, (28, 28, 1), (2, 5), (53, 133)),
    (0.1, (28, 28, 1), (2, 5), (28, 28)),
    (1, (28, 28, 1), (2, 5), (56, 140)),
    (0.2, (28, 28, 1), (2, 5), (28, 56)),
    (0.3, (8, 8, 1), (10, 1), (24, 8)),
    (1 / 3, (8, 8, 1), (1, 3), (8, 8)),
])
def test_shapes_of_a_budget(ipc, image, grid, expected):
    height, width = poster_shape(ipc, image, class_grid=grid)
    assert (height, width) == expected
    budget = ipc * grid[0] * grid[1] * image[0] * image[1]
    assert height * width <= budget + 1e-6 and height >= image[0] and width >= image[1]
    assert budget - height * width < max(height, width)


def test_numbers_of_patches():
    assert patch_counts((60, 153), (32, 32, 3)) == (5, 16)
    assert patch_counts((28, 30), (28, 28, 1)) == (1, 2)
    assert patch_counts((30, 36), (28, 28, 1), stride=0.001) == (3, 9)


def test_label_maps_take_the_poster_s_aspect():
    assert layout.label_map_shape((60, 153), 10) == (2, 5)
    assert layout.label_map_shape((303, 303), 100) == (10, 10)
    for shape, cells in itertools.product([(7, 100), (100, 1), (30, 31), (8, 8)], [1, 2, 7, 90]):
        rows, columns = layout.label_map_shape(shape, cells)
        assert 1 <= rows * columns <= cells


def test_the_picture_of_a_pixelwise_normaliser_is_the_poster():
    data = members.toy_data()
    normaliser = standardise(data)
    head = poster(shape=(11, 13), image_shape=(8, 8, 1), patches=(3, 4), class_grid=(1, 2))
    params = head.init(KEY, members.start("real", labels="one_hot"))
    images = head.decode(params, KEY).images
    shown = poster_image(images, normaliser, shape=(11, 13), patches=(3, 4))
    expected = np.clip(denormalise(normaliser, params["poster"]), 0, 1)
    assert shown.shape == (11, 13, 1) and shown.dtype == np.float32
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    assert 0 < shown.std()


def test_the_picture_of_whitened_images_is_unwhitened_patch_by_patch():
    data = members.toy_data()
    normaliser = zca(data, per_image=True, centre=False)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    shown = poster_image(images, normaliser, shape=(8, 12), patches=(1, 2))
    unit = np.asarray(denormalise(normaliser, images), np.float64)
    whole = np.concatenate([unit[0, :, :4], (unit[0, :, 4:] + unit[1, :, :4]) / 2, unit[1, :, 4:]],
                           axis=1)
    whole = (whole - whole.min()) / (whole.max() - whole.min())
    np.testing.assert_allclose(shown, whole, atol=1e-6)


def test_pixels_that_no_patch_shows_are_grey():
    shown = poster_image(np.ones((2, 2, 2, 1), np.float32), identity((2, 2, 1)), shape=(2, 6),
                         patches=(1, 2))
    assert shown[0, :, 0].tolist() == [1, 1, 0.5, 0.5, 1, 1]


def test_refusals():
    for wrong, match in (
        (dict(shape=(3, 13)), "smaller than an image"),
        (dict(shape=(7.0, 13)), "side of the poster"),
        (dict(shape=7), "poster is 7"),
        (dict(image_shape=(4, 5)), "image_shape"),
        (dict(patches=(5, 4)), "only 4 places"),
        (dict(patches=(0, 4)), "side of the patches"),
        (dict(class_grid=(2, 0)), "side of the class grid"),
        (dict(area=(8, 5)), "area is"),
        (dict(labels="soft"), "poster labels 'soft'"),
        (dict(label_ipc=0), "label_ipc is 0"),
        (dict(order=[0, 1, 2, 3, 4, 5]), "order is"),
        (dict(order=[[0, 1, 2], [3, 4, 4]]), "order is"),
        (dict(order=ORDER + 0.0), "order is"),
    ):
        with pytest.raises(ConfigError, match=match):
            poster(**{**GEOMETRY, **wrong})
    head = poster(**GEOMETRY)
    with pytest.raises(ConfigError, match=r"images of \(4, 4, 2\) and 6 classes"):
        head.init(KEY, start()._replace(images=jnp.zeros((6, 4, 4, 2))))
    with pytest.raises(ConfigError, match="2 classes"):
        head.init(KEY, SyntheticSet(jnp.zeros((2, *IMAGE)), jnp.eye(2)))
    for ipc in (0.09, 0, -1, float("nan"), float("inf"), None, True):
        with pytest.raises(ConfigError, match="expected at least 1 / 10"):
            poster_shape(ipc, IMAGE, class_grid=(2, 5))
    with pytest.raises(ConfigError, match="stride"):
        patch_counts((7, 13), IMAGE, stride=0)
    with pytest.raises(ConfigError, match="expected those of 3x4 patches"):
        poster_image(np.zeros((11, *IMAGE)), identity(IMAGE), shape=(7, 13), patches=(3, 4))
