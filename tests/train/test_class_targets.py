"""Class targets against the network called batch by batch."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.data import as_index, from_arrays, normalise, standardise
from dd_jax.errors import ConfigError
from dd_jax.train.class_targets import class_targets

SIZES, BATCH = (10, 7, 3), 5


def real_data():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(3), SIZES))
    return from_arrays(rng.integers(0, 256, (20, 8, 8, 1)).astype(np.uint8), labels)


def test_means_of_features_and_averages_of_batch_statistics():
    data = real_data()
    normaliser = standardise(data)
    network = nets.convnet(data.spec, depth=1, width=3, norm="batch")
    variables = jax.jit(network.init)(jax.random.key(0))
    found = class_targets(network, variables, data, 1, normaliser=normaliser,
                          key=jax.random.key(1), batch_size=BATCH)
    look = jax.jit(network.norm_inputs)
    images = normalise(normaliser, data.images)
    # Classes of two whole batches, of one and a part, of a part; the rows and weights of each.
    batches = ([(range(0, 5), 0.5), (range(5, 10), 0.5)],
               [(range(0, 5), 5 / 7), (range(2, 7), 2 / 7)], [((0, 1, 2, 0, 1), 1.0)])
    for c, size in enumerate(SIZES):
        rows = np.asarray(data.class_rows[c])
        mean = np.mean(look(variables, images[rows[:size]])[0].features, axis=0)
        np.testing.assert_allclose(found.points[c, 0], mean, atol=1e-5)
        parts = [(look(variables, images[rows[list(places)]])[1][0], w) for places, w in batches[c]]
        for i in range(2):
            wanted = sum(w * part[i] for part, w in parts)
            np.testing.assert_allclose(found.statistics[0][i][c], wanted, rtol=1e-4, atol=1e-5)


def test_it_can_be_traced_and_refuses_what_it_cannot_look_at():
    data = real_data()
    network = nets.convnet(data.spec, depth=1, width=3, norm="batch")
    variables = jax.eval_shape(network.init, jax.random.key(0))
    options = dict(normaliser=standardise(data), key=jax.random.key(1))

    def build(variables, data):
        return class_targets(network, variables, data, 4, learn_weights=True, **options)

    shapes = jax.eval_shape(build, variables, data)
    assert shapes.points.shape == (3, 4, 108)
    with pytest.raises(ConfigError, match="device"):
        class_targets(network, variables, as_index(data), 1, **options)
    with pytest.raises(ConfigError, match="norm_inputs"):
        class_targets(network._replace(norm_inputs=None), variables, data, 1, **options)
