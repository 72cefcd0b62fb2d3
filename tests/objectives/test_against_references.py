"""Objectives against slow references written from the papers' formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets, objectives, pools
from dd_jax.errors import ConfigError
from dd_jax.objectives.feature_ridge import label_margin
from dd_jax.types import Batch, Network, Outputs
from tests.laws import members


def started(objective):
    return objective.init(jax.random.key(0), members.start("noise"))



def flat_network(scale=1.0):
    """Features are the pixels themselves, so the maths can be done by hand."""

    def apply(variables, images, train=False):
        x = scale * images.reshape(images.shape[0], -1)
        return Outputs(x[:, :2], x)

    return Network(init=lambda key: {"params": {}}, apply=apply)


def real_batch(seed=0, count=6):
    rng = np.random.default_rng(seed)
    return Batch(jnp.asarray(rng.normal(size=(count, *members.SHAPE)), jnp.float32),
                 jnp.asarray(rng.integers(0, 2, count), jnp.int32))


@pytest.mark.parametrize("flip", [False, True])
def test_feature_ridge_equals_a_float64_autodiff_reference(flip):
    """Value and gradient, in images and labels, through a dense float64 solve."""
    network = flat_network()
    objective = objectives.feature_ridge(network, pools.fresh_pool(network), batch_size=6,
                                         ridge=1e-3, flip=flip)
    synthetic, batch = members.start("noise"), real_batch()

    def ours(images, labels):
        moved = synthetic._replace(images=images, labels=labels)
        return objective.loss(moved, started(objective), batch, jax.random.key(0))[0]

    def reference(images, labels):
        x, y = images, labels
        if flip:
            x, y = jnp.concatenate([x, x[:, :, ::-1]]), jnp.concatenate([y, y])
        f_s, f_t = x.reshape(len(x), -1), batch.images.astype(images.dtype).reshape(6, -1)
        gram = f_s @ f_s.T
        mu = 1e-3 * jnp.trace(gram) / len(gram)
        p = (f_t @ f_s.T) @ jnp.linalg.inv(gram + mu * jnp.eye(len(gram))) @ y
        wanted = jax.nn.one_hot(batch.labels, 2) - 0.5
        top = jnp.sort(labels, axis=1)
        margin = jnp.minimum(top[:, -1] - top[:, -2], 0.5)
        return 0.5 * jnp.mean(jnp.sum((p - wanted) ** 2, 1)) - margin.mean()

    value, gradients = jax.value_and_grad(ours, (0, 1))(synthetic.images, synthetic.labels)
    with jax.enable_x64(True):
        images, labels = (jnp.asarray(x, jnp.float64) for x in synthetic[:2])
        expected, wanted = jax.value_and_grad(reference, (0, 1))(images, labels)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for ours_leaf, reference_leaf in zip(gradients, wanted):
        np.testing.assert_allclose(ours_leaf, reference_leaf, rtol=1e-3, atol=1e-6)


def test_label_margin_is_capped():
    labels = jnp.array([[1.0, 0.0, 0.0], [0.4, 0.3, 0.2]])
    np.testing.assert_allclose(label_margin(labels, 0.5), (0.5 + 0.1) / 2, rtol=1e-6)


def test_mean_embedding_equals_numpy():
    network = flat_network(2.0)
    objective = objectives.mean_embedding(network, pools.fresh_pool(network), batch_size=3)
    synthetic = members.start("noise")
    rng = np.random.default_rng(1)
    real = rng.normal(size=(2, 3, *members.SHAPE)).astype(np.float32)
    batch = Batch(jnp.asarray(real), jnp.zeros((2, 3), jnp.int32))
    value, _ = objective.loss(synthetic, started(objective), batch, jax.random.key(0))
    expected = 0.0
    for c in range(2):
        difference = 2 * (real[c].mean(0) - np.asarray(synthetic.images)[2 * c : 2 * c + 2].mean(0))
        expected += (difference**2).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_mean_embedding_is_zero_for_identical_sets():
    network = nets.convnet(members.SPEC, depth=1, width=4)
    objective = objectives.mean_embedding(network, pools.fresh_pool(network), batch_size=2)
    synthetic = members.start("noise")
    batch = Batch(synthetic.images.reshape(2, 2, *members.SHAPE), jnp.zeros((2, 2), jnp.int32))
    assert float(objective.loss(synthetic, started(objective), batch, jax.random.key(0))[0]) < 1e-8


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_classes_mapped_or_vmapped_and_chunks_agree(how):
    network = nets.convnet(members.SPEC, depth=1, width=4)
    values = []
    for options in ({"classes": how, "chunk": 2}, {"classes": "vmap", "chunk": 64}):
        objective = objectives.mean_embedding(network, pools.fresh_pool(network), batch_size=5,
                                              **options)
        batch = jax.tree.map(lambda x: jnp.stack([x, x + 1]), real_batch(count=5))
        value, _ = objective.loss(members.start("noise"), started(objective), batch,
                                  jax.random.key(0))
        values.append(value)
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


def test_weighted_sum_adds_values_and_gradients():
    network = flat_network()
    part = objectives.mean_embedding(network, pools.fresh_pool(network), batch_size=2)
    both = dict(zip("ab", (part, part)))
    total = objectives.weighted_sum(list(both.values()), [2.0, 0.5])
    batch = Batch(jnp.ones((2, 2, *members.SHAPE)), jnp.zeros((2, 2), jnp.int32))
    synthetic = members.start("noise")
    value, metrics = total.loss(synthetic, started(total), (batch, batch), jax.random.key(0))
    alone, _ = part.loss(synthetic, started(part), batch, jax.random.key(0))
    np.testing.assert_allclose(value, 2.5 * alone, rtol=1e-6)
    assert {"loss/0", "loss/1"} <= set(metrics)
    with pytest.raises(ConfigError, match="2 objectives and 1 weights"):
        objectives.weighted_sum([part, part], [1.0])
