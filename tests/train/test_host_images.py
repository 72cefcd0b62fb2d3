"""Images that stay on the host train the same network as those on the device."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import optax

from dd_jax import nets
from dd_jax.data import standardise
from dd_jax.train import fit, permuted_epochs, real_images
from tests.laws import members


def test_a_training_fed_from_the_host_is_the_same():
    toy, network = members.toy_data(), nets.mlp(members.SPEC, width=4)
    host = dataclasses.replace(toy, images=np.asarray(toy.images))
    start = network.init(jax.random.key(0))

    def trained(data, keys):
        return jax.jit(jax.vmap(lambda key: fit(
            network, start, take=real_images(data, standardise(toy)), key=key,
            batches=permuted_epochs(64, 24, 2), optimizer=optax.sgd(0.1)).variables))(keys)

    keys = jax.random.split(jax.random.key(1), 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
                 trained(toy, keys), trained(host, keys))
    whole = real_images(host, standardise(toy))(None)
    np.testing.assert_array_equal(whole[0], real_images(toy, standardise(toy))(None)[0])
