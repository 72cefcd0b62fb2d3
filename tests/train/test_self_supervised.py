"""Self-supervised losses against NumPy, views, and a teacher that learns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import augment, nets, train
from dd_jax.data import from_arrays, standardise
from dd_jax.errors import ConfigError
from tests.laws import members


def standardised(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def pair(seed=0, shape=(7, 4)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), rng.normal(size=shape)


def test_barlow_twins_equals_numpy():
    a, b = pair()
    c = standardised(a).T @ standardised(b) / 7
    expected = sum((1 - c[i, i]) ** 2 if i == j else 0.3 * c[i, j] ** 2
                   for i in range(4) for j in range(4))
    found = train.barlow_twins(jnp.float32(a), jnp.float32(b), off_diagonal=0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_simsiam_equals_numpy_and_holds_the_targets():
    a, b = pair()
    p, q = pair(1)

    def cosine(x, y):
        norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        return np.mean(np.sum(x * y, axis=1) / norms)

    arrays = [jnp.float32(x) for x in (a, b, p, q)]
    found, gradients = jax.value_and_grad(train.simsiam, (0, 1, 2))(*arrays)
    np.testing.assert_allclose(found, -0.5 * (cosine(p, b) + cosine(q, a)), rtol=1e-4)
    assert not np.any(gradients[0]) and not np.any(gradients[1]) and np.any(gradients[2])


def test_views_move_by_at_most_the_padding_and_show_the_fill():
    augmentation = augment.views((8, 8, 1), padding=2, flip=False, fill=jnp.float32([-5.0]))
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    drawn = augmentation.draw(jax.random.key(0), 50)
    seen = np.asarray(augmentation.apply(drawn, jnp.repeat(jnp.asarray(image), 50, axis=0)))
    padded = np.pad(image[0, :, :, 0], 2, constant_values=-5)
    windows = [padded[i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    matches = [next(k for k, w in enumerate(windows) if np.array_equal(w, x))
               for x in seen[..., 0]]
    assert len(set(matches)) > 10


def teacher(loss, norm):
    data = members.toy_data()
    network = nets.convnet(members.SPEC, depth=1, width=4, norm=norm)
    trained = train.train_self_supervised(
        network, data, normaliser=standardise(data), key=jax.random.key(0), steps=40,
        augmentation=augment.views(members.SHAPE, padding=1, colour=0.2), batch_size=32,
        optimizer=optax.adam(1e-2), loss=loss, projector=(32,),
    )
    return network, trained


@pytest.mark.parametrize("loss,norm", [("barlow_twins", "instance"), ("simsiam", "batch")])
def test_training_lowers_the_loss(loss, norm):
    network, trained = teacher(loss, norm)
    losses = np.asarray(trained.losses)
    assert losses.shape == (40,) and np.all(np.isfinite(losses))
    change = losses[:5].mean() - losses[-5:].mean()
    assert change > (0.3 * losses[:5].mean() if loss == "barlow_twins" else 0.2), losses
    like = jax.eval_shape(network.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, trained.variables) == jax.tree.map(jnp.shape, like)
    if norm == "batch":
        assert np.any(np.asarray(trained.variables["batch_stats"]["norm0"]["mean"]) != 0)


@pytest.mark.parametrize("changes,message", [
    ({"loss": "barlow"}, "barlow_twins"), ({"steps": 0}, "steps is 0"),
    ({"batch_size": 65}, "batch_size is 65"), ({"batch_size": 1}, "batch_size is 1"),
    ({"projector": ()}, "no layer"),
])
def test_bad_settings_are_refused(changes, message):
    data = members.toy_data()
    options = dict(normaliser=standardise(data), augmentation=augment.views(members.SHAPE),
                   key=jax.random.key(0), steps=2, batch_size=8)
    with pytest.raises(ConfigError, match=message):
        train.train_self_supervised(nets.mlp(members.SPEC), data, **{**options, **changes})


def test_images_on_the_host_are_refused():
    host = from_arrays(np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0, 1], device=False)
    with pytest.raises(ConfigError, match="device"):
        train.train_self_supervised(
            nets.mlp(members.SPEC), host, normaliser=standardise(members.toy_data()),
            augmentation=augment.views(members.SHAPE), key=jax.random.key(0), steps=1, batch_size=2)
