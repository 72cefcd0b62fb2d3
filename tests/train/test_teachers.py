"""Networks trained on real images before a distillation."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.data import normalise, standardise
from dd_jax.errors import ConfigError
from dd_jax.train.teachers import train_supervised
from dd_jax.types import Augmentation
from tests.laws import members

MLP = nets.mlp(members.SPEC, width=8)


def train(network, data, **changes):
    settings = dict(normaliser=standardise(data), key=jax.random.key(0), steps=40, batch_size=16,
                    optimizer=optax.sgd(0.05, momentum=0.9))
    return train_supervised(network, data, **{**settings, **changes})


def accuracy(network, variables, data):
    images = normalise(standardise(data), data.images)
    logits = network.apply(variables, images).logits
    return float(jnp.mean(jnp.argmax(logits, axis=-1) == data.labels))


def test_a_teacher_learns_and_its_start_is_the_untrained_network(toy):
    seen = []

    def init(key):
        seen.append(key)
        return MLP.init(key)

    initial, trained = train(MLP._replace(init=init), toy)
    assert len(seen) == 1
    assert jax.tree.structure(initial) == jax.tree.structure(trained)
    # No step: the trained end of a rate of nothing is the start.
    same, still = train(MLP, toy, optimizer=optax.sgd(0.0))
    for a, b, c in zip(*(jax.tree.leaves(x) for x in (initial, same, still)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert accuracy(MLP, trained, toy) == 1.0


def test_one_step_is_the_optimisers_step_on_the_whole_set(toy):
    """A batch as large as the set has one value whatever its order: an independent gradient."""
    initial, trained = train(MLP, toy, steps=1, batch_size=1000, optimizer=optax.sgd(0.5))
    images = normalise(standardise(toy), toy.images)

    @jax.jit
    def loss(params):
        logs = jax.nn.log_softmax(MLP.apply({"params": params}, images).logits)
        return -jnp.mean(jnp.take_along_axis(logs, toy.labels[:, None], axis=1))

    grads = jax.grad(loss)(initial["params"])
    wanted = jax.tree.map(lambda p, g: p - 0.5 * g, initial["params"], grads)
    for ours, theirs in zip(jax.tree.leaves(trained["params"]), jax.tree.leaves(wanted)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_it_can_be_mapped_over_keys_and_takes_running_statistics_along(toy):
    network = nets.convnet(members.SPEC, depth=1, width=2, norm="batch")
    drawn = []

    def draw(key, count):
        drawn.append(count)
        return jax.random.uniform(key, (count, 1, 1, 1))

    noise = Augmentation(draw, lambda params, images: images + params)

    def one(key):
        return train(network, toy, key=key, steps=3, augmentation=noise, mix=0.5)

    keys = jax.random.split(jax.random.key(3), 2)
    shapes = jax.eval_shape(one, keys[0])
    initial, trained = jax.jit(lambda keys: jax.lax.map(one, keys))(keys)
    assert set(drawn) == {16}  # a draw for every image
    for like, a, b in zip(*(jax.tree.leaves(x) for x in (shapes[1], initial, trained)),
                          strict=True):
        assert a.shape == b.shape == (2, *like.shape) and a.dtype == b.dtype == like.dtype
        assert np.all(np.isfinite(b))
    means = jax.tree.leaves(trained["batch_stats"])
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(initial["batch_stats"]), means))
    assert np.any(trained["params"]["head"]["kernel"][0] != trained["params"]["head"]["kernel"][1])


@pytest.mark.parametrize("changes", [dict(steps=0), dict(batch_size=0), dict(mix=2.0)], ids=str)
def test_settings_that_cannot_be_are_refused(toy, changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        train(MLP, toy, **changes)


def test_images_on_the_host_are_refused(toy):
    host = dataclasses.replace(toy, images=np.asarray(toy.images))
    with pytest.raises(ConfigError, match="on the device"):
        train(MLP, host, normaliser=standardise(toy))
