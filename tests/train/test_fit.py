"""The gradient of a batch, and the one loop that follows it over a set."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.labels import Views, own_labels, stored_targets, teacher
from dd_jax.labels.losses import squared_error
from dd_jax.train import (
    augmented,
    fit,
    permuted_epochs,
    planned,
    random_batches,
    rows_of,
)
from dd_jax.train.supervised import batch_gradient, measured_gradient, right
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


def seen_in_an_epoch(key, batches=None, *, supervision=None, **options):
    """[20, batches, SIZE]: the weight of each image in each step of a pass, for 20 keys."""
    network = _counter()
    batches = batches or permuted_epochs(SIZE, STEP)
    images = jnp.broadcast_to(jnp.eye(SIZE)[:, None, :, None], (SIZE, SIZE, SIZE, 1))

    def one(key):
        return fit(network, network.init(key), take=rows_of(images, jnp.ones((SIZE, 1))),
                   batches=batches, optimizer=logging(batches.epochs * batches.steps), key=key,
                   supervision=supervision or own_labels(squared_error),
                   **options).optimizer.seen

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


def test_integer_labels_cannot_be_mixed():
    with pytest.raises(ConfigError, match="these are integers"):
        augmented(mix=0.5)(jax.random.key(0), jnp.ones((2, 4, 4, 1)), jnp.arange(2))


def test_an_order_is_made_once_an_epoch_and_each_epoch_has_its_own():
    made, plain = [], permuted_epochs(SIZE, STEP, 3)

    def begin(key, epoch):
        order = plain.begin(key, epoch)
        jax.debug.callback(lambda order: made.append(tuple(order.tolist())), order)
        return order

    logs = seen_in_an_epoch(jax.random.key(3), plain._replace(begin=begin))
    jax.effects_barrier()
    assert len(made) == 20 * 3 and len(set(made)) > 50
    assert logs.shape == (20, 9, SIZE)
    np.testing.assert_array_equal((logs.reshape(20, 3, 3, SIZE) > 0).sum(axis=2), 1)


@pytest.mark.parametrize("size", [2, None])
def test_random_batches_are_distinct_images_in_every_step(size):
    logs = seen_in_an_epoch(jax.random.key(4), random_batches(SIZE, size, 5)) > 0
    np.testing.assert_array_equal(logs.sum(axis=-1), size or SIZE)
    # Each image is drawn 100 * 2 / 7 = 29 times or so, with a deviation below 5.
    assert size is None or np.ptp(logs.sum(axis=(0, 1))) < 25


def test_a_plan_is_followed_step_by_step():
    rows = np.random.default_rng(0).permutation(12).reshape(6, 2) % SIZE
    logs = seen_in_an_epoch(jax.random.key(5), planned(jnp.asarray(rows), epochs=2, steps=3))
    wanted = np.zeros((6, SIZE))
    for step, both in enumerate(rows):
        np.add.at(wanted[step], both, 0.5)
    np.testing.assert_allclose(logs, np.broadcast_to(wanted, logs.shape), rtol=1e-6)


def test_images_count_by_their_weights():
    """sum w l / sum w over each batch, in which padding weighs nothing, and nothing gives 0."""
    weights = jnp.asarray([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    for log in seen_in_an_epoch(jax.random.key(6), weights=weights):
        batches = log.argsort(axis=1)[:, ::-1][:, :STEP]
        assert not log[:, 0].any()
        for step, rows in zip(log, batches):
            rows = rows[step[rows] > 0]
            np.testing.assert_allclose(step[rows] * weights[rows].sum(), weights[rows], rtol=1e-5)
    assert not seen_in_an_epoch(jax.random.key(6), weights=0 * weights).any()


def test_stored_targets_are_those_of_the_rows_and_of_the_epoch():
    targets = np.arange(1.0, 1.0 + 2 * SIZE, dtype=np.float32).reshape(2, SIZE, 1)
    for told, epochs in ((stored_targets(targets, loss=squared_error, by_epoch=True), [0, 1, 0]),
                         (stored_targets(targets[1], loss=squared_error), [1, 1, 1])):
        logs = seen_in_an_epoch(jax.random.key(7), permuted_epochs(SIZE, SIZE, 3),
                                supervision=told)
        wanted = targets[epochs, :, 0] / SIZE
        np.testing.assert_allclose(logs, np.broadcast_to(wanted, logs.shape), rtol=1e-6)
    with pytest.raises(ConfigError, match="stored targets"):
        stored_targets(targets[0, :, 0], by_epoch=True)


def test_a_teacher_tells_what_it_sees_in_the_views():
    variables = NETWORK.init(jax.random.key(1))
    told = teacher(NETWORK, variables, temperature=2.0)
    images, free = batch(19)
    logits = np.asarray(NETWORK.apply(variables, images).logits, np.float64)
    wanted = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    targets = told.targets(told.arrays, Views(jnp.asarray(images), None, None, None, None))
    np.testing.assert_allclose(targets, wanted, rtol=1e-5)
    log_p = free / 2 - np.log(np.exp(free / 2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(told.loss(free, targets), -(wanted * log_p).sum(axis=1), rtol=1e-5)
    for wrong in (dict(temperature=0.0), dict(loss="cross_entropy")):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            teacher(NETWORK, variables, **wrong)


def test_a_traced_number_of_steps_and_what_is_watched_and_measured():
    images, labels = map(jnp.asarray, batch(6))
    variables = NETWORK.init(jax.random.key(2))

    @jax.jit
    def trained(steps):
        def run(batches, **options):
            return fit(NETWORK, variables, take=rows_of(images, labels), optimizer=optax.sgd(0.1),
                       batches=batches, key=jax.random.key(0), **options)

        def head(variables):
            return variables["params"]["head"]["bias"]

        watched = run(planned(None, epochs=3, steps=1), watch=head, measure=right)
        return run(random_batches(6, None, steps)), watched, head(watched.variables)

    given, watched, last = trained(3)
    close(given.variables, watched.variables, rtol=1e-5, atol=1e-7)
    assert watched.watched.shape == (3, 2) and given.watched is None and given.measured == 0
    np.testing.assert_array_equal(watched.watched[-1], last)
    *_, counted = measured_gradient(NETWORK, variables, images, labels, measure=right)
    classes = NETWORK.apply(variables, images).logits.argmax(axis=1)
    assert counted == np.sum(classes == labels.argmax(axis=1)) and watched.measured >= counted
