"""The gradient of a batch, and the one loop that follows it over a set."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.train import augmented, fit, own_labels, permuted_epochs, rows_of, squared_error
from dd_jax.train.supervised import batch_gradient
from dd_jax.types import Augmentation, Network, Outputs
from tests.laws import members
from tests.objectives import reference_gradients as reference

NETWORK = nets.mlp(members.SPEC, width=8, depth=2)


def batch(count, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.dirichlet(np.ones(2), size=count)
    return rng.normal(size=(count, *members.SHAPE)).astype(np.float32), labels.astype(np.float32)


def close(ours, wanted, **tolerance):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


# On a CPU these are one chunk, two even ones, two of which the last is not full, and three.
@pytest.mark.parametrize("count", [5, 18, 19, 35])
def test_the_gradient_of_a_batch_does_not_depend_on_chunks(count):
    images, labels = batch(count)
    variables = NETWORK.init(jax.random.key(1))
    params = reference.as_float64(variables["params"])

    @jax.jit
    def both(images, labels, weights):
        plain, same = batch_gradient(NETWORK, variables, images, labels)
        weighted, _ = batch_gradient(NETWORK, variables, images, labels, weights=weights)
        return plain, weighted, same

    keep = np.arange(count) % 3 != 1
    plain, weighted, same = both(images, labels, keep.astype(np.float32))
    close(plain, reference.gradient(params, images, labels), rtol=1e-4, atol=1e-6)
    close(weighted, reference.gradient(params, images[keep], labels[keep]), rtol=1e-4, atol=1e-6)
    close(same, variables)


def test_batch_normalisation_in_training_sees_the_whole_batch():
    network = nets.convnet(members.SPEC, depth=1, width=2, norm="batch")
    images, labels = batch(19)

    @jax.jit
    def compared(images):
        variables = network.init(jax.random.key(0))

        def loss(params):
            outputs = network.apply({**variables, "params": params}, images, True)
            chosen = labels * jax.nn.log_softmax(outputs.logits)
            return -jnp.mean(jnp.sum(chosen, axis=-1)), outputs.batch_stats

        wanted, statistics = jax.grad(loss, has_aux=True)(variables["params"])
        ours, after = batch_gradient(network, variables, images, labels, train=True)
        return (ours, after["batch_stats"]), (wanted, statistics), variables["batch_stats"]

    ours, wanted, before = compared(images)
    close(ours, wanted, rtol=1e-3, atol=1e-5)
    for a, b in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(before)):
        assert np.any(np.asarray(a) != b)


SIZE, STEP = 7, 3


def _counter():
    """Image i is the i-th unit vector and logits are w . x: at w = 0 a gradient lists its rows.

    Images repeat the vector in each of their lines, and the network takes the mean line.
    """

    def apply(variables, images, train=False):
        flat = jnp.mean(images, axis=1)[..., 0]
        return Outputs((flat @ variables["params"])[:, None], flat)

    return Network(init=lambda key: {"params": jnp.zeros(SIZE)}, apply=apply)


class Log(NamedTuple):
    """A state of an optimiser: its steps so far, and the gradient of each with the other sign."""

    count: jax.Array
    seen: jax.Array


def logging(steps):
    def update(grads, log, params):
        log = Log(log.count + 1, log.seen.at[log.count].set(-grads))
        return jnp.zeros_like(grads), log

    return optax.GradientTransformation(
        lambda params: Log(jnp.int32(0), jnp.zeros((steps, SIZE))), update)


def seen_in_an_epoch(key, batches=None, **options):
    """[batches, SIZE]: the weight of each image in each step of a pass."""
    network = _counter()
    batches = batches or permuted_epochs(SIZE, STEP)
    images = jnp.broadcast_to(jnp.eye(SIZE)[:, None, :, None], (SIZE, SIZE, SIZE, 1))

    def one(key):
        return fit(network, network.init(key), take=rows_of(images, jnp.ones((SIZE, 1))),
                   batches=batches, optimizer=logging(batches.epochs * batches.steps), key=key,
                   supervision=own_labels(squared_error), **options).optimizer.seen

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, 20)))


def test_a_pass_takes_every_row_once_in_a_new_order():
    logs = seen_in_an_epoch(jax.random.key(0))
    for log in logs:
        np.testing.assert_array_equal((log > 0).sum(axis=1), [3, 3, 1])
        np.testing.assert_array_equal((log > 0).sum(axis=0), 1)
        # The last step is the mean over its one row: padding neither counts nor dilutes.
        np.testing.assert_allclose(log[log > 0].sum(), 3.0, rtol=1e-6)
        np.testing.assert_allclose(log[2].max(), 1.0, rtol=1e-6)
    assert len({log.tobytes() for log in logs}) > 15


def test_augmentation_is_drawn_for_each_image():
    counts = []

    def draw(key, count):
        counts.append(count)
        return jax.random.uniform(key, (count,))

    scaling = Augmentation(draw, lambda factors, x: x * factors[:, None, None, None])
    logs = seen_in_an_epoch(jax.random.key(1), views=augmented(scaling))
    assert set(counts) == {STEP}
    factors = logs * np.array([3, 3, 1])[None, :, None]  # batches of 3, 3 and 1
    factors = factors[factors > 0]
    assert len(factors) == 20 * SIZE and factors.max() < 1
    assert len(set(factors.round(6).tolist())) > 100


def test_mixing_reaches_the_training():
    logs = seen_in_an_epoch(jax.random.key(2), views=augmented(mix=1.0))
    assert ((logs > 0).sum(axis=(1, 2)) < SIZE).any() or len(set(logs[logs > 0].tolist())) > 2
