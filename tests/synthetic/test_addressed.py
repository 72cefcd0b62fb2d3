"""Images as combinations of shared bases."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.synthetic import address_rows, addressed, stored_bytes
from dd_jax.types import SyntheticSet

KEY = jax.random.key(1)
SHAPE = (6, 8, 2)


def start(classes=3, each=2, shape=SHAPE):
    labels = jnp.repeat(jnp.eye(classes), each, axis=0)
    return SyntheticSet(jnp.ones((classes * each, *shape)), labels, jnp.float32(0.1))


def line(size, factor):
    """One line enlarged: between which two pixels each new pixel lies, and how far."""
    for i in range(size * factor):
        x = min(max((i + 0.5) / factor - 0.5, 0.0), size - 1.0)
        low = int(x)
        yield low, min(low + 1, size - 1), x - low


def enlarged(base, factor):
    """[h, w, C] float64, half-pixel centres and clamped edges, pixel by pixel."""
    rows = np.array([(1 - t) * base[a] + t * base[b] for a, b, t in line(len(base), factor)])
    return np.array([(1 - t) * rows[:, a] + t * rows[:, b]
                     for a, b, t in line(base.shape[1], factor)]).swapaxes(0, 1)


@pytest.mark.parametrize("factor, per_class", [(2, False), (1, False), (2, True)])
def test_images_are_enlarged_combinations(factor, per_class):
    head = addressed(bases=4, rows=5, downsample=factor, per_class=per_class)
    with jax.enable_x64(True):
        given = jax.tree.map(lambda x: x.astype(jnp.float64), start())
        params = head.init(jax.random.key(0), given)
        small = (6 // factor, 8 // factor, 2)
        assert params["bases"].shape == ((3,) if per_class else ()) + (4, *small)
        found = head.decode(params, KEY)
        bases, addresses = (np.asarray(params[name]) for name in ("bases", "addresses"))
        images = np.asarray(found.images)
    assert images.dtype == np.float64
    expected = np.zeros((3, 5, *SHAPE))
    for c in range(3):
        own = bases[c] if per_class else bases
        for r in range(5):
            # As officially: combined small, then enlarged.
            expected[c, r] = enlarged(sum(a * b for a, b in zip(addresses[c, r], own)), factor)
    np.testing.assert_allclose(images, expected.reshape(-1, *SHAPE), atol=1e-14)
    assert np.argmax(found.labels, axis=1).tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_the_start_is_xavier_uniform_and_does_not_look_at_images():
    head = addressed(bases=30, rows=40)
    params = head.init(jax.random.key(0), start())
    for name, fans in (("bases", 3 * 4 * 2 + 30), ("addresses", 3 * 40 + 30)):
        bound = np.sqrt(6 / fans)
        assert np.abs(params[name]).max() <= bound
        np.testing.assert_allclose(np.std(params[name]), bound / np.sqrt(3), rtol=0.05)
    other = head.init(jax.random.key(0), start(each=1)._replace(images=jnp.zeros((3, *SHAPE))))
    for name, leaf in params.items():
        np.testing.assert_array_equal(leaf, other[name])


def test_cost_groups_rate_and_derivative():
    head = addressed(bases=4, rows=5)
    given = start()._replace(log_temperature=jnp.ones(()), labels=start().labels - 0.5)
    params = head.init(jax.random.key(0), given)
    assert stored_bytes(params) == 4 * (4 * 3 * 4 * 2 + 3 * 5 * 4 + 3 * 3 + 2)
    assert stored_bytes(params) == sum(np.asarray(leaf).nbytes for leaf in params.values())
    assert head.groups(params) == {
        "bases": "images", "addresses": "images", "labels": "constant",
        "log_learning_rate": "learning_rate", "log_temperature": "temperature"}

    def total(params):
        found = head.decode(params, KEY)
        return jnp.sum(found.images**2) + jnp.sum(found.labels**2) + found.learning_rate

    found = head.decode(params, KEY)
    np.testing.assert_allclose(found.learning_rate, 0.1, rtol=1e-6)
    assert found.log_temperature == 1 and found.labels.max() == 0.5
    gradient = jax.grad(total)(params)
    assert not jnp.any(gradient["labels"])
    # The sum of squares is of degree two in the bases and in the addresses alike.
    squares = float(jnp.sum(found.images**2))
    for name in ("bases", "addresses"):
        np.testing.assert_allclose(jnp.vdot(gradient[name], params[name]), 2 * squares, rtol=1e-5)


@pytest.mark.parametrize("ipc, shape, classes, bases, expected", [
    (1, (32, 32, 3), 10, 16, 115),
    (1, (28, 28, 1), 10, 16, 29),
    (0.5, (28, 28, 1), 10, 10, 19),
    (0.29, (10, 10, 1), 10, 2, 12),  # 290 numbers, of which 0.29 * 100 * 10 falls short in floats
])
def test_rows_of_a_budget(ipc, shape, classes, bases, expected):
    rows = address_rows(ipc, shape, classes=classes, bases=bases)
    assert rows == expected

    def numbers(rows):
        head = addressed(bases=bases, rows=rows)
        given = SyntheticSet(jnp.zeros((classes, *shape)), jnp.eye(classes))
        params = jax.eval_shape(head.init, jax.random.key(0), given)
        return params["bases"].size + params["addresses"].size

    assert numbers(rows) <= round(ipc * classes * np.prod(shape)) < numbers(rows + 1)


def test_rows_of_a_budget_with_bases_per_class():
    assert address_rows(1, (8, 8, 1), classes=3, bases=2, per_class=True) == (64 - 32) // 2


def test_refusals():
    for wrong in (dict(bases=0), dict(rows=0), dict(downsample=1.5)):
        name = next(iter(wrong))
        with pytest.raises(ConfigError, match=name):
            addressed(**{"bases": 2, "rows": 2, **wrong})
    head = addressed(bases=2, rows=2)
    with pytest.raises(ConfigError, match="does not divide 7 pixels"):
        head.init(KEY, start(shape=(8, 7, 1)))
    with pytest.raises(ConfigError, match="does not divide 9 pixels"):
        address_rows(1, (9, 8, 1), classes=2, bases=2)
    with pytest.raises(ConfigError, match="4 images with labels"):
        head.init(KEY, SyntheticSet(jnp.zeros((4, *SHAPE)), jnp.ones((4, 3)) / 3))
    with pytest.raises(ConfigError, match="40 bases take 640"):
        address_rows(1, (8, 8, 1), classes=10, bases=40)
    for ipc in (0, -1, float("nan"), True, "1"):
        with pytest.raises(ConfigError, match="ipc is"):
            address_rows(ipc, (8, 8, 1), classes=10, bases=1)
