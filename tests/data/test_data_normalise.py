from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import data
from dd_jax.errors import ConfigError, DataError, SetFileError

SHAPE = (4, 3, 2)
D = 24


def toy(count=200, shape=SHAPE):
    rng = np.random.default_rng(0)
    smooth = rng.random((count, *shape)) + rng.random((count, 1, 1, 1))  # correlated pixels
    pixels = np.rint(smooth / smooth.max() * 255).astype(np.uint8)
    return data.from_arrays(pixels, np.arange(count) % 2), pixels.astype(np.float64) / 255


def reference(unit, *, relative=True, standard=True, per_image=False, centre=True, reg=0.1):
    """Whitened images and the matrix, the slow way, in float64."""
    z = unit
    if standard:
        z = (z - z.mean((0, 1, 2))) / z.std((0, 1, 2))
    z = z.reshape(len(z), -1)
    if per_image:
        z = z - z.mean(1, keepdims=True)
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    if centre:
        z = z - z.mean(0)
    cov = z.T @ z / len(z)
    ridge = reg * np.trace(cov) / D if relative else reg
    u, s, _ = np.linalg.svd(cov + ridge * np.eye(D))
    matrix = u @ np.diag(s**-0.5) @ u.T
    return (z @ matrix).reshape(unit.shape), matrix


FAMILIES = {
    "zca": {},
    "zca_absolute": {"relative": False, "standard": False},
    "zca_per_image": {"per_image": True, "centre": False},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_zca_equals_a_float64_reference(name):
    real, unit = toy()
    fitted = data.normalisers(name, real)
    expected, matrix = reference(unit, **FAMILIES[name])
    assert fitted.kind == name
    np.testing.assert_allclose(fitted.whiten, matrix, rtol=1e-5, atol=1e-5)
    found = data.normalise(fitted, real.images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_raw_images_are_whitened_one_by_one_without_standardised_channels():
    """RaT-BPTT's: each image's own mean and norm, then the second moment of these."""
    real, unit = toy()
    fitted = data.normalisers("zca_per_image_raw", real)
    expected, matrix = reference(unit, standard=False, per_image=True, centre=False)
    assert fitted.kind == "zca_per_image" and fitted.per_image
    np.testing.assert_allclose(fitted.whiten, matrix, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(data.normalise(fitted, real.images), expected, rtol=1e-4, atol=2e-5)
    other = data.normalise(data.normalisers("zca_per_image", real), real.images)
    assert np.abs(other - expected).max() > 1e-2


def test_absolute_whitening_is_that_of_a_constant_beside_the_eigenvalues():
    """MTT's, of raw pixels about their mean; FRePo's is another."""
    real, unit = toy(3072)
    flat = unit.reshape(3072, D) - unit.reshape(3072, D).mean(0)
    vectors, values, _ = np.linalg.svd(flat.T @ flat / len(flat))
    wanted = flat @ (vectors / np.sqrt(values + 0.1)) @ vectors.T
    found, other = (np.asarray(data.normalise(data.normalisers(name, real), real.images))
                    for name in ("zca_absolute", "zca"))
    np.testing.assert_allclose(found.reshape(3072, D), wanted, atol=1e-4)
    assert np.abs(other.reshape(3072, D) - wanted).max() > 0.1


def test_standardise_equals_numpy_and_accepts_given_values():
    real, unit = toy()
    found = np.asarray(data.normalise(data.standardise(real), real.images))
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, atol=1e-5)
    given = data.standardise(real, mean=[0.5, 0.25], std=0.5)
    np.testing.assert_allclose(
        data.normalise(given, real.images), (unit - [0.5, 0.25]) / 0.5, atol=1e-6
    )
    for bad in ({"mean": [0.1] * 3}, {"std": 0.0}, {"std": [0.1, -1]}, {"mean": np.nan}):
        with pytest.raises(ConfigError):
            data.standardise(real, **bad)


@pytest.mark.parametrize("name", ["none", "standardise", "zca", "zca_absolute"])
def test_inverse_undoes(name):
    real, unit = toy()
    fitted = data.normalisers(name, real)
    back = jax.jit(lambda n, x: data.denormalise(n, data.normalise(n, x)))(fitted, real.images)
    np.testing.assert_allclose(back, unit, atol=2e-5)
    batch = jnp.asarray(unit[:6], jnp.float32).reshape(2, 3, *SHAPE)
    again = data.normalise(fitted, data.denormalise(fitted, batch))
    np.testing.assert_allclose(again, batch, atol=5e-5)


def test_per_image_comes_back_up_to_mean_and_scale():
    real, unit = toy()
    fitted = data.normalisers("zca_per_image", real)
    back = np.asarray(data.denormalise(fitted, data.normalise(fitted, real.images)))
    mean, std = unit.mean((0, 1, 2)), unit.std((0, 1, 2))
    z, w = ((a - mean) / std for a in (unit, back))
    for a, b in zip(z.reshape(len(z), -1), w.reshape(len(w), -1)):
        assert np.corrcoef(a, b)[0, 1] > 0.9999


@pytest.mark.parametrize("name", ["standardise", "zca", "zca_absolute", "zca_per_image"])
def test_constant_images_stay_finite(name):
    pixels = np.full((60, *SHAPE), 128, np.uint8)
    real = data.from_arrays(pixels, np.arange(60) % 2)
    fitted = data.normalisers(name, real)
    loss = lambda x: jnp.sum(data.normalise(fitted, x) ** 2)  # noqa: E731
    images = jnp.full((2, *SHAPE), 128 / 255)
    assert np.isfinite(data.normalise(fitted, images)).all()
    assert np.isfinite(jax.grad(loss)(images)).all()
    assert np.isfinite(data.denormalise(fitted, images)).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_fewer_images_than_values_warns_and_stays_finite(name):
    real, _ = toy(10)
    with pytest.warns(UserWarning, match="10 images of 24 values"):
        fitted = data.normalisers(name, real)
    assert np.isfinite(fitted.whiten).all() and np.isfinite(fitted.unwhiten).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.zca(toy(24)[0])


def test_zero_regulariser_works_and_negative_is_refused():
    real, _ = toy(10)
    with pytest.warns(UserWarning):
        assert np.isfinite(data.zca(real, reg=0.0).whiten).all()
    for bad in (-0.1, np.nan):
        with pytest.raises(ConfigError, match="reg"):
            data.zca(real, reg=bad)


def test_misuse_is_refused():
    real, _ = toy()
    fitted = data.zca(real)
    with pytest.raises(ConfigError, match="normaliser"):
        data.normalise(fitted, jnp.zeros((1, 4, 3, 1)))
    with pytest.raises(ConfigError, match="24"):
        data.normalise(fitted, jnp.zeros((1, 8, 8, 2)))
    with pytest.raises(ConfigError, match="int32"):
        data.normalise(fitted, jnp.zeros((1, *SHAPE), jnp.int32))
    with pytest.raises(ConfigError, match="zca"):
        data.normalisers("zcaa", real)
    with pytest.raises(DataError, match="index"):
        data.standardise(data.as_index(real))


@pytest.mark.parametrize("name", data.NORMALISERS)
def test_tensors_round_trip(name):
    real, _ = toy()
    fitted = data.normalisers(name, real)
    again = data.from_tensors(*data.to_tensors(fitted))
    assert jax.tree.structure(again) == jax.tree.structure(fitted)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(fitted)):
        np.testing.assert_array_equal(a, b)


def broken(change):
    tensors, meta = data.to_tensors(data.zca(toy()[0]))
    change(tensors, meta)
    return tensors, meta


@pytest.mark.parametrize(
    "change",
    [
        lambda t, m: t.pop("std"),
        lambda t, m: t.pop("unwhiten"),
        lambda t, m: t.update(extra=t["mean"]),
        lambda t, m: t.update(std=t["std"] * 0),
        lambda t, m: t.update(std=t["std"][:1]),
        lambda t, m: t.update(mean=t["mean"] * np.nan),
        lambda t, m: t.update(mean=t["mean"].astype(int)),
        lambda t, m: t.update(whiten=t["whiten"][:5]),
        lambda t, m: t.update(pixel_mean=t["pixel_mean"][:5]),
        lambda t, m: t.update(pixel_mean=np.float32(0)),
        lambda t, m: t.update(mean=np.zeros(5, np.float32), std=np.ones(5, np.float32)),
        lambda t, m: m.update(kind="zcaa"),
        lambda t, m: m.update(per_image="maybe"),
        lambda t, m: m.clear(),
    ],
)
def test_broken_tensors_are_refused(change):
    with pytest.raises(SetFileError):
        data.from_tensors(*broken(change))


def test_absolute_whitening_is_that_of_kornia_on_as_many_images_as_values_in_cifar():
    """Which the codes of MTT and DataDAM use: with the unbiased covariance, and 0.1 added to it."""
    real, unit = toy(3072)
    z = unit.reshape(len(unit), -1) - unit.reshape(len(unit), -1).mean(0)
    u, s, _ = np.linalg.svd(z.T @ z / (len(z) - 1))
    expected = (z @ u / np.sqrt(s + 0.1) @ u.T).reshape(unit.shape)

    def gap(name):
        found = data.normalise(data.normalisers(name, real), real.images)
        return np.abs(np.asarray(found) - expected).max()

    assert gap("zca_absolute") < 1e-4 and gap("zca") > 0.1


def test_published_numbers_are_those_of_a_name_and_a_number_of_channels():
    def std(name, channels, normaliser="published"):
        pixels = np.random.default_rng(0).integers(0, 256, (6, 2, 2, channels), np.uint8)
        real = data.from_arrays(pixels, np.arange(6) % 2, name=name)
        own = data.standardise(real).std
        fitted = data.normalisers(normaliser, real)
        assert fitted.kind == "standardise"
        return np.asarray(fitted.std, np.float64).round(4).tolist(), np.array_equal(fitted.std, own)

    assert std("cifar10", 3) == ([0.2023, 0.1994, 0.2010], False)
    assert std("cifar100", 3) == ([0.2673, 0.2564, 0.2762], False)
    assert std("cifar100", 3, "published_cifar") == std("cifar10", 3)
    assert std("svhn_cropped", 3, "published_cifar") == std("svhn", 3)
    for name, channels in (("cifar10", 1), ("mnist", 3), ("mine", 3)):  # by what they are
        assert std(name, channels)[1] and std(name, channels, "published_cifar")[1]


def test_chunked_fit_equals_whole(monkeypatch):
    real, _ = toy()
    whole = data.zca(real).whiten
    rows = lambda a, **_: ((i, np.asarray(a[i : i + 7])) for i in range(0, len(a), 7))  # noqa: E731
    monkeypatch.setattr("dd_jax.data.fit.row_chunks", rows)
    np.testing.assert_allclose(data.zca(real).whiten, whole, atol=1e-6)
