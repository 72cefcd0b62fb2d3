"""An expert is what a plain loop makes of the same settings, as one flat row after every epoch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import data as dd_data
from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.train.expert_rules import ExpertRule
from dd_jax.train.experts import flat_layout, train_expert, unflatten
from dd_jax.types import Augmentation
from tests.laws import members
from tests.objectives import reference_gradients as reference

NETWORK = nets.mlp(members.SPEC, width=4, depth=2)
KEY = jax.random.key(3)


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


@pytest.fixture(scope="module")
def start():
    return jax.jit(NETWORK.init)(jax.random.key(9))["params"]


def train(toy, **settings):
    settings = {"epochs": 2, "batch_size": 24, "learning_rate": 0.1, "key": KEY, **settings}
    return np.asarray(train_expert(NETWORK, toy, normaliser=dd_data.standardise(toy), **settings))


def test_the_layout_is_the_order_of_the_flat_vector():
    tree = {"b": {"w": np.arange(6.0).reshape(2, 3)}, "a": np.arange(2.0) + 10}
    assert flat_layout(tree) == [("a", (2,)), ("b/w", (2, 3))]
    row = jax.flatten_util.ravel_pytree(tree)[0]
    back = unflatten(jax.eval_shape(lambda: tree))(row)
    np.testing.assert_array_equal(back["b"]["w"], tree["b"]["w"])
    np.testing.assert_array_equal(back["a"], tree["a"])
    with pytest.raises(ConfigError, match=r"shape \(7,\), expected \(8,\)"):
        unflatten(tree)(row[:7])


@pytest.mark.parametrize("restart", [None, 2])
def test_whole_batches_follow_a_loop_in_numpy(toy, start, restart):
    """All images in one step, so that their order does not matter."""
    rates = (0.3, 0.3, 0.1)
    ours = train(toy, epochs=3, batch_size=1000, learning_rate=rates, momentum=0.9,
                 weight_decay=0.01, restart=restart, start=start)
    images = np.asarray(dd_data.normalise(dd_data.standardise(toy), toy.images))
    labels = np.eye(2)[np.asarray(toy.labels)]
    params = reference.as_float64(start)
    velocity = jax.tree.map(np.zeros_like, params)
    rows = [flat(params)]
    for epoch, rate in enumerate(rates):
        if epoch == restart:
            velocity = jax.tree.map(np.zeros_like, params)
        grads = reference.gradient(params, images, labels)
        velocity = jax.tree.map(lambda u, g, p: 0.9 * u + g + 0.01 * p, velocity, grads, params)
        params = jax.tree.map(lambda p, u, rate=rate: p - rate * u, params, velocity)
        rows.append(flat(params))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, rows, rtol=1e-4, atol=1e-5)
    assert np.abs(rows[3] - rows[0]).max() > 0.05


def test_a_key_gives_its_network_and_its_orders(toy, start):
    """Two keys at once, of which the first is what it is alone."""
    keys = jnp.stack([KEY, jax.random.key(4)])
    together = np.asarray(jax.jit(jax.vmap(lambda key: train_expert(
        NETWORK, toy, normaliser=dd_data.standardise(toy), key=key, epochs=2, batch_size=24,
        learning_rate=0.1)))(keys))
    alone = train(toy)
    np.testing.assert_allclose(together[0], alone, atol=1e-6)
    first = unflatten(start)(alone[0])
    assert jax.tree.map(np.shape, first) == jax.tree.map(np.shape, start)
    assert np.abs(together[1][0] - alone[0]).max() > 0.1
    assert len({row.tobytes() for row in alone}) == 3


def test_a_rule_sees_the_epoch_and_the_images_of_the_batch_before_augmentation(toy):
    def gradient(network, epoch):
        def rule(variables, images, labels, weights, plain_images):
            by = jnp.mean(images - plain_images) * (epoch + 1)
            return jax.tree.map(lambda p: jnp.full_like(p, by), variables["params"]), variables
        return rule

    brighter = Augmentation(lambda key, count: (), lambda params, images: images + 2.0)
    rows = train(toy, epochs=3, learning_rate=0.5, augmentation=brighter,
                 rule=ExpertRule(gradient, {"name": "test"}))
    # Three batches of 24, 24 and 16 rows, each a step of -0.5 * 2 * (epoch + 1).
    steps = np.diff(rows, axis=0)
    np.testing.assert_allclose(steps, -3.0 * np.arange(1, 4)[:, None] * np.ones_like(steps),
                               rtol=1e-5)


@pytest.mark.parametrize("settings, piece", [
    (dict(epochs=0), "epochs is 0"),
    (dict(batch_size=2.5), "batch_size is 2.5"),
    (dict(learning_rate=-0.1), "learning_rate is -0.1"),
    (dict(learning_rate=[0.1]), "learning_rate has 1 numbers, expected one for each of 2 epochs"),
    (dict(momentum="no"), "momentum is 'no'"),
    (dict(restart=-1), "restart is -1"),
    (dict(augmentation="flip"), "augmentation is 'flip', expected an Augmentation or None"),
    (dict(rule=ExpertRule), "expected an ExpertRule or None"),
    (dict(start={"w": np.zeros(3)}), "start is not the parameters of the network 'mlp'"),
])
def test_wrong_settings_are_refused(toy, settings, piece):
    with pytest.raises(ConfigError) as caught:
        train(toy, **settings)
    assert piece in str(caught.value)


def test_what_a_trajectory_cannot_hold_is_refused(toy):
    normaliser = dd_data.standardise(toy)
    network = nets.convnet(members.SPEC, depth=1, width=2, norm="batch")
    with pytest.raises(ConfigError, match="keeps batch_stats beside its parameters"):
        train_expert(network, toy, normaliser=normaliser, key=KEY, epochs=1)
    host = dd_data.from_arrays(np.asarray(toy.images), np.asarray(toy.labels), device=False)
    with pytest.raises(ConfigError, match="load the set with device=True"):
        train_expert(NETWORK, host, normaliser=normaliser, key=KEY, epochs=1)
