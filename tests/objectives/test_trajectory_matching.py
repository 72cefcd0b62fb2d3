"""Which segments a step asks for, what it gets, and how the start is shaken."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.objectives import Segments, StartEpochs, compared, trajectory_matching
from dd_jax.objectives.trajectory_matching import TrajectoryState, shaken
from dd_jax.train import student
from dd_jax.types import HostRows
from tests.laws import members

NETWORK = members.one_convolution(width=4)


@functools.cache
def walks():
    return members.Walks(NETWORK, experts=3, epochs=6)


def objective(starts=None, span=2, **options):
    return trajectory_matching(student(NETWORK, steps=2), Segments(walks(), span),
                               starts=starts or StartEpochs(0, 4), **options)


def at(step):
    return TrajectoryState(jnp.int32(step))


def test_every_expert_and_start_epoch_is_drawn_alike():
    matching, draws = objective(StartEpochs(1, 4)), 1200

    @jax.jit
    def drawn(keys):
        return jax.vmap(lambda key: matching.sample(None, at(0), key).index)(keys)

    expert, epoch = map(np.asarray, drawn(jax.random.split(jax.random.key(0), draws)))
    counts = np.zeros((3, 6))
    np.add.at(counts, (expert, epoch), 1)
    assert counts[:, [0, 4, 5]].sum() == 0
    mean = draws / 9
    chi_square = ((counts[:, 1:4] - mean) ** 2 / mean).sum()
    assert chi_square < 26.1  # of eight degrees of freedom, once in a thousand


def test_the_range_of_start_epochs_grows_by_whole_epochs():
    """min(T + floor((T+ - T) step / end), T+)."""
    starts = StartEpochs(0, 20, first=10, until=1000)
    for step in (0, 99, 100, 101, 999, 1000, 5000):
        assert int(starts.now(jnp.int32(step))) == min(10 + 10 * step // 1000, 20)
    matching = objective(StartEpochs(0, 4, first=1, until=6))
    sample = jax.jit(jax.vmap(matching.sample, in_axes=(None, None, 0)))
    keys = jax.random.split(jax.random.key(0), 64)
    for step, most in ((0, 0), (3, 1), (5, 2), (6, 3), (100, 3)):
        assert np.asarray(sample(None, at(step), keys).index[1]).max() == most, step


def test_a_step_counts_itself():
    matching = objective()
    synthetic = members.start()._replace(learning_rate=jnp.float32(0.1))
    state = matching.init(jax.random.key(0), synthetic)
    assert state == at(0) and matching.advance(synthetic, state, None, None) == at(1)


@pytest.mark.parametrize("waypoints", [False, True])
def test_segments_are_the_stored_rows(waypoints):
    segments, rows = Segments(walks(), 3, waypoints=waypoints), walks().rows
    for index in ((np.int32(2), np.int32(1)), (np.int32([0, 2]), np.int32([3, 0]))):
        found = segments.read(index)
        expert, epoch = index
        np.testing.assert_array_equal(found.start, rows[expert, epoch])
        np.testing.assert_array_equal(found.target, rows[expert, epoch + 3])
        np.testing.assert_array_equal(found.epoch, epoch)
        if waypoints:
            between = np.stack([rows[expert, epoch + i] for i in (1, 2)], axis=-2)
            np.testing.assert_array_equal(found.between, between)
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (found, segments.like(index)))
        assert shapes[0] == shapes[1]


def test_only_kernels_of_convolutions_are_shaken_by_noise_of_norm_one():
    params = jax.tree.map(lambda x: x + 1.0, NETWORK.init(jax.random.key(0))["params"])
    moved = [shaken(params, jax.random.key(seed), 0.7) for seed in range(2)]
    noise = [np.asarray(m["hidden0"]["kernel"] / params["hidden0"]["kernel"] - 1) for m in moved]
    np.testing.assert_allclose([np.linalg.norm(n) for n in noise], 0.7, rtol=1e-4)
    assert abs(np.vdot(*noise)) < 0.2 and min(np.unique(n).size for n in noise) > 200
    for name, layer in (("bias", "hidden0"), ("kernel", "head"), ("bias", "head")):
        np.testing.assert_array_equal(moved[0][layer][name], params[layer][name])
    shapes = jax.eval_shape(nets.convnet(members.SPEC, depth=2, width=4).init, jax.random.key(0))
    four = [name for name, leaf in jax.tree_util.tree_leaves_with_path(shapes) if leaf.ndim == 4]
    assert [jax.tree_util.keystr(name[1:], simple=True, separator="/") for name in four] == [
        "conv0/kernel", "conv1/kernel"]


def test_a_shaken_start_is_what_distances_are_relative_to():
    """Students of rate zero stay there: a distance of one to wherever it is."""
    matching = objective(shake=5.0)
    synthetic = members.start(labels="one_hot")._replace(learning_rate=jnp.float32(0.0))
    segment = Segments(walks(), 2).read((np.int32(1), np.int32(0)))
    loss = jax.jit(lambda rate, key: matching.loss(
        synthetic._replace(learning_rate=rate), at(0), segment, key)[0])
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_allclose([loss(0.0, key) for key in keys], 1.0, rtol=1e-5)
    assert abs(loss(0.5, keys[0]) - loss(0.5, keys[1])) > 1e-3  # fresh noise in every step


def test_the_cosine_to_the_exact_gradient():
    fixed = Segments(walks(), 2).read((np.int32(0), np.int32(0)))
    synthetic = members.start(labels="one_hot")._replace(learning_rate=jnp.float32(0.5))

    def matching(factor):
        plain = objective()
        turned = jnp.asarray(np.random.default_rng(0).normal(size=synthetic.images.shape))

        def loss(synthetic, *args):
            value, metrics = plain.loss(synthetic, *args)
            return value + factor * jnp.sum(turned * synthetic.images), metrics

        return plain._replace(loss=loss)

    @jax.jit
    def slope(factor):
        def loss(images):
            return matching(factor).loss(synthetic._replace(images=images), at(0), fixed,
                                         jax.random.key(0))[0]
        return jax.grad(loss)(synthetic.images)

    a, b = (np.ravel(slope(factor)) for factor in (0.0, 0.02))
    both = compared(matching(0.0), matching(0.02))
    metrics = jax.jit(lambda: both.loss(synthetic, at(0), fixed, jax.random.key(0)))()[1]
    np.testing.assert_allclose(metrics["cosine"], a @ b / np.linalg.norm(a) / np.linalg.norm(b),
                               rtol=1e-4)
    assert 0.05 < metrics["cosine"] < 0.99


@pytest.mark.parametrize("starts,span,said", [
    (StartEpochs(0, 6), 2, "need experts of 7 epochs, and these have 6.*max_start=5 or epochs=7"),
    (StartEpochs(0, 1), 7, "span is 7.*span=6 or less"),
    (StartEpochs(0, 1), 0, "span is 0"),
    (StartEpochs(-1, 1), 2, "min_start is -1"),
    (StartEpochs(3, 3), 2, "max_start is 3"),
    (StartEpochs(0, 3, first=4, until=10), 2, "begins at 4 and ends at 3"),
    (StartEpochs(1, 3, first=1, until=10), 2, "first_max_start is 1"),
    (StartEpochs(0, 3, first=2, until=0), 2, "growth_steps is 0"),
    (StartEpochs(0, 3, until=50), 2, "growth_steps is 50.*first_max_start=1 or growth_steps=0"),
])
def test_start_epochs_that_cannot_be_are_refused(starts, span, said):
    with pytest.raises(ConfigError, match=said):
        objective(starts, span)


def test_the_latest_segment_that_fits_is_taken():
    rows = objective(StartEpochs(4, 5)).sample(None, at(0), jax.random.key(0))
    assert isinstance(rows, HostRows) and int(rows.index[1]) == 4
    np.testing.assert_array_equal(rows.store.read(rows.index).target[0],
                                  walks().rows[int(rows.index[0]), 6, 0])


def test_a_student_takes_a_rate_for_each_of_its_steps():
    matching, segment = objective(), Segments(walks(), 2).read((np.int32(0), np.int32(0)))
    synthetic = members.start(labels="one_hot")

    @jax.jit
    def both(rates):
        metrics = matching.loss(synthetic._replace(learning_rate=rates), at(0), segment,
                                jax.random.key(0))
        return metrics[0], metrics[1]["rate"]

    value, rate = both(jnp.array([0.1, 0.3]))
    assert rate.shape == () and float(rate) == pytest.approx(0.2)
    assert float(value) != pytest.approx(float(both(jnp.array([0.3, 0.1]))[0]))
    with pytest.raises(ConfigError, match="3 learning rates for 2 steps"):
        matching.init(jax.random.key(0), synthetic._replace(learning_rate=jnp.ones(3)))


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(ConfigError, match="learning_rate=0.01"):
        objective().init(jax.random.key(0), members.start())
    with pytest.raises(ConfigError, match="shake is -1"):
        objective(shake=-1)
    other = members.Walks(members.one_convolution(width=3), experts=1)
    matching = trajectory_matching(student(NETWORK, steps=2), Segments(other, 2),
                                   starts=StartEpochs(0, 1))
    synthetic = members.start(labels="one_hot")._replace(learning_rate=jnp.float32(0.1))
    segment = Segments(other, 2).read((np.int32(0), np.int32(0)))
    with pytest.raises(ConfigError, match="expected .*use the network that the experts were"):
        matching.loss(synthetic, at(0), segment, jax.random.key(0))
