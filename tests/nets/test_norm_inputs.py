"""The statistics of what every batch normalisation gets, against the layers themselves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.types import DataSpec

SPEC = DataSpec("toy", (8, 8, 1), 2, ("a", "b"))


def test_the_statistics_are_those_that_a_training_pass_stores():
    network = nets.convnet(SPEC, depth=2, width=4, norm="batch")

    @jax.jit
    def both(key):
        variables = network.init(key)
        images = 2 + jax.random.normal(jax.random.fold_in(key, 1), (5, 8, 8, 1))
        return [(network.norm_inputs(variables, images, train),
                 network.apply(variables, images, train)) for train in (True, False)]

    ((outputs, found), plain), ((tested, seen), untrained) = both(jax.random.key(0))
    np.testing.assert_allclose(outputs.logits, plain.logits, atol=1e-6)
    np.testing.assert_allclose(tested.logits, untrained.logits, atol=1e-6)
    assert len(found) == len(seen) == 2
    for i, (mean, variance) in enumerate(found):
        # running = 0.9 * old + 0.1 * new, from means of 0 and variances of 1
        stored = plain.batch_stats[f"norm{i}"]
        np.testing.assert_allclose(0.1 * mean, stored["mean"], atol=1e-5)
        np.testing.assert_allclose(0.9 + 0.1 * variance, stored["var"], rtol=1e-4)
    # The first layer sees the same in training and in testing, the second one does not.
    np.testing.assert_allclose(seen[0][1], found[0][1], rtol=1e-4)
    assert not np.allclose(seen[1][1], found[1][1], rtol=0.05)


def test_in_order_of_execution():
    network = nets.resnet18(SPEC, width=2)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    found = jax.eval_shape(network.norm_inputs, variables, jnp.ones((3, 8, 8, 1)))[1]
    # The stem; then two layers a block, and one more where the skip changes the width.
    assert [m.shape for m, _ in found] == [(w,) for w in [2] * 5 + [4] * 5 + [8] * 5 + [16] * 5]


@pytest.mark.parametrize("norm", ["none", "instance", "group"])
def test_none_without_batch_normalisation(norm):
    network = nets.convnet(SPEC, depth=1, width=4, norm=norm)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    found = jax.eval_shape(network.norm_inputs, variables, jnp.ones((2, 8, 8, 1)))
    assert found[1] == () and found[0].logits.shape == (2, 2)
