"""Rates of images follow the networks' width and the budget: the first update is about as long."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import data, methods
from dd_jax.data.fetch import fetch, in_model_space


@functools.cache
def real():
    """Two classes of Fashion-MNIST, 64 images of each at half the resolution."""
    split = data.load_embedded().train
    rows = np.asarray(split.class_rows)[[0, 9], :64].reshape(-1)
    with jax.ensure_compile_time_eval():
        return data.from_arrays(np.asarray(split.images)[rows][:, ::2, ::2], np.repeat([0, 1], 64))


def first_update(method, *, ipc, width, rate):
    """The mean length of a stored image's first step, over some networks; no momentum is in it."""
    queue = dict(queue_capacity=4, queue_batch_size=4) if method == "idm" else {}
    recipe = methods.recipe(method, real(), protocol="cpu", ipc=ipc, width=width, batch_size=16,
                            augmentation="none", **queue)

    def length(key):
        params = recipe.parameterization.init(key, recipe.start(real(), key))
        objective, decode = recipe.objective, recipe.parameterization.decode
        state = objective.init(key, decode(params, key))
        rows = objective.sample(real(), state, key)
        batch = in_model_space(recipe.normaliser, fetch(real(), rows))

        def loss(images):
            return objective.loss(decode({**params, "images": images}, key), state, batch, key)[0]

        slope = jax.grad(loss)(params["images"])
        return jnp.mean(jnp.sqrt(jnp.sum(slope**2, axis=(1, 2, 3))))

    keys = jax.random.split(jax.random.key(0), 2)
    return rate * float(jnp.mean(jax.jit(lambda keys: jax.lax.map(length, keys))(keys)))


# IDM's short runs end better at half the rate that would move images as far; DM's at the official
# rate, so it is not here.
@pytest.mark.parametrize("method,share", [("cafe", 1.0), ("idm", 0.5)])
def test_narrow_networks_and_several_images_move_images_as_far(method, share):
    rates = {ipc: methods.preset(method, "cpu", ipc).learning_rate for ipc in (1, 10)}
    official = methods.preset(method, "official", 1).learning_rate
    narrow = first_update(method, ipc=1, width=32, rate=rates[1])
    wide = first_update(method, ipc=1, width=128, rate=official)
    several = first_update(method, ipc=10, width=32, rate=rates[10])
    assert 0.5 * share < narrow / wide < 2.0 and 0.5 < several / narrow < 2.0
