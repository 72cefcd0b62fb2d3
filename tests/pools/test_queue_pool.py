"""The queue of networks: who is in it, who is trained on what, and what their accuracy is."""

from __future__ import annotations

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.pools.queue import accuracy_percent, queue_pool
from dd_jax.types import SyntheticSet
from tests.laws import members
from tests.objectives import reference_gradients as reference

NETWORK = nets.mlp(members.SPEC, width=6, depth=2)
TRAINED, STEPS, BATCH = 2, 2, 3
SIZES = dict(start=2, capacity=4, every=3, forget=5, trained=TRAINED, steps=STEPS, batch_size=BATCH)


def training_images(seed, count=TRAINED * STEPS * BATCH):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, *members.SHAPE))
    return SyntheticSet(jnp.asarray(images, jnp.float32), jnp.eye(2)[rng.integers(0, 2, count)])


def right(params, part):
    logits = (reference.hidden(params, part.images) @ params["head"]["kernel"]
              + params["head"]["bias"])
    return logits.argmax(axis=1) == np.asarray(part.labels).argmax(axis=1)


def network_at(state, place):
    return reference.as_float64(jax.tree.map(lambda x: x[place], state.variables["params"]))


def places(state, capacity=4):
    """Of the living networks, the oldest first."""
    return [(int(state.oldest) + i) % capacity for i in range(int(state.alive))]


def marks(state):
    """What identifies each living network as long as it is not trained, the oldest first."""
    return [float(network_at(state, place)["hidden0"]["kernel"][0, 0]) for place in places(state)]


@pytest.fixture(scope="module")
def untrained():
    """A queue whose networks never change: (init, advance)."""
    pool = queue_pool(NETWORK, optimizer=optax.sgd(0.0), **SIZES)
    return jax.jit(pool.init), jax.jit(pool.advance), pool


def test_new_networks_enter_and_the_oldest_leave(untrained):
    init, advance, pool = untrained
    state = init(jax.random.key(0), None)
    queue = collections.deque(marks(state), maxlen=SIZES["capacity"])
    ever = set(queue)
    assert len(queue) == SIZES["start"] + 1  # one has entered in the first step
    for call in range(1, 22):
        state = advance(state, training_images(call), jax.random.key(call))
        assert int(state.calls) == call
        if call % SIZES["every"] == 0:
            newest = marks(state)[-1]
            assert newest not in ever and abs(newest) <= 1 / 8  # a random network
            ever.add(newest)
            queue.append(newest)
        assert marks(state) == list(queue)
        assert int(state.current) in places(state)
        used = pool.draw(state, jax.random.key(0))["params"]["hidden0"]["kernel"][0, 0]
        assert float(used) == float(state.variables["params"]["hidden0"]["kernel"][
            int(state.current), 0, 0])
    assert len(ever) == SIZES["start"] + 1 + 7  # six of them dropped


def test_counts_are_those_of_the_training_batches_since_they_were_forgotten(untrained):
    init, advance, _ = untrained
    state = init(jax.random.key(1), None)
    assert float(accuracy_percent(state)) == 0.0
    correct, seen = {}, {}  # by network
    for call in range(1, 16):
        images = training_images(call)
        before = state
        state = advance(state, images, jax.random.key(call))
        # Of two trainings, on the first and the second half: one of these pairs of networks was
        # drawn, which are never the same one twice.
        halves = [SyntheticSet(*(x[half * 6:half * 6 + 6] for x in images[:2])) for half in (0, 1)]
        results = {}
        for pair in itertools.permutations(places(before), 2):
            counts = {place: int(right(network_at(before, place), half).sum())
                      for half, place in zip(halves, pair)}
            results[pair] = (counts, dict.fromkeys(pair, 6))
        # What the state says is one of them, on top of what it said before.
        if call % SIZES["forget"] == 0:
            assert not np.any(state.correct) and not np.any(state.seen)
            correct, seen = {}, {}
            continue
        matches = []
        for counts, shown in results.values():
            after = [dict(old) for old in (correct, seen)]
            for old, more in zip(after, (counts, shown)):
                for place, number in more.items():
                    mark = float(network_at(before, place)["hidden0"]["kernel"][0, 0])
                    old[mark] = old.get(mark, 0) + number
            told = [{mark: int(x[p]) for mark, p in zip(marks(state), places(state)) if x[p]}
                    for x in (state.correct, state.seen)]
            alive = set(marks(state))
            if [{m: n for m, n in old.items() if n and m in alive} for old in after] == told:
                matches.append(after)
        assert matches, call
        correct, seen = matches[0]
        mark = float(network_at(state, int(state.current))["hidden0"]["kernel"][0, 0])
        expected = 100 * correct.get(mark, 0) / max(seen.get(mark, 0), 1)
        np.testing.assert_allclose(accuracy_percent(state), expected, rtol=1e-6)


def test_a_training_is_sgd_with_momentum_and_coupled_decay_on_distinct_slices():
    """One network, trained once a call; the velocity goes on from training to training."""
    pool = queue_pool(NETWORK, start=1, capacity=1, every=1000, trained=1, steps=3, batch_size=19)
    state = jax.jit(pool.init)(jax.random.key(0), None)
    params = network_at(state, 0)
    velocity = jax.tree.map(np.zeros_like, params)
    advance, correct = jax.jit(pool.advance), 0
    for call in range(4):
        images = training_images(call, 3 * 19)
        state = advance(state, images, jax.random.key(call))
        for first in range(0, 57, 19):
            part = SyntheticSet(*(x[first:first + 19] for x in images[:2]))
            correct += int(right(params, part).sum())
            slope = reference.gradient(params, part.images, part.labels)
            slope = jax.tree.map(lambda g, p: g + 5e-4 * p, slope, params)
            velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, slope)
            params = jax.tree.map(lambda p, v: p - 0.01 * v, params, velocity)
    for ours, theirs in zip(jax.tree.leaves(network_at(state, 0)), jax.tree.leaves(params)):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert (int(state.correct[0]), int(state.seen[0])) == (correct, 228)


def test_networks_are_drawn_uniformly_among_the_living(untrained):
    init, advance, pool = untrained
    state = init(jax.random.key(0), None)._replace(alive=jnp.int32(3), oldest=jnp.int32(2))
    keys = jax.random.split(jax.random.key(1), 600)
    images = training_images(0)
    currents, seen = jax.jit(jax.vmap(
        lambda key: (lambda s: (s.current, s.seen))(pool.advance(state, images, key))))(keys)
    used = np.bincount(np.asarray(currents), minlength=4)
    trainings = np.asarray(seen).sum(axis=0) / (STEPS * BATCH)
    assert used[1] == trainings[1] == 0  # a place that nobody has
    for counts in (used, trainings):
        share = counts[[0, 2, 3]] / counts.sum()
        assert np.abs(share - 1 / 3).max() < 5 * np.sqrt(2 / 9 / counts.sum())
    first = [int(pool_current) for pool_current in
             jax.jit(jax.vmap(lambda key: pool.init(key, None).current))(keys[:40])]
    assert set(first) == {0, 1, 2}


def test_the_networks_of_a_step_are_distinct_and_all_of_them_where_there_are_no_more(untrained):
    init, _, pool = untrained
    images, keys = training_images(0), jax.random.split(jax.random.key(1), 200)
    advance = jax.jit(jax.vmap(lambda state, key: pool.advance(state, images, key).seen,
                               in_axes=(None, 0)))
    state = init(jax.random.key(0), None)
    for alive, oldest in ((3, 0), (2, 3), (4, 1)):
        seen = np.asarray(advance(state._replace(alive=jnp.int32(alive),
                                                 oldest=jnp.int32(oldest)), keys))
        assert np.all(np.sort(seen)[:, -TRAINED:] == STEPS * BATCH)  # each of them once
        assert np.all(seen.sum(axis=1) == TRAINED * STEPS * BATCH)
        trained = {tuple(np.flatnonzero(row)) for row in seen}
        living = [(oldest + i) % 4 for i in range(alive)]
        assert trained == {tuple(sorted(pair)) for pair in itertools.combinations(living, 2)}


def test_batch_normalisation_takes_and_keeps_statistics():
    network = nets.convnet(members.SPEC, depth=1, width=2, norm="batch")
    pool = queue_pool(network, start=1, capacity=2, every=5, trained=1, steps=2, batch_size=3)
    state = jax.jit(pool.init)(jax.random.key(0), None)
    images = training_images(0, 6)
    after = jax.jit(pool.advance)(state, images, jax.random.key(1))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    before, moved = (np.asarray(s.variables["batch_stats"]["norm0"]["mean"])
                     for s in (state, after))
    one, other = np.argsort(-np.asarray(after.seen))  # only the first was trained
    assert np.abs(moved[one] - before[one]).max() > 1e-4
    np.testing.assert_array_equal(moved[other], before[other])


def test_vmap_over_seeds_equals_single_queues_and_keeps_shapes(untrained):
    init, advance, pool = untrained
    images = training_images(3)

    def run(seed):
        state = pool.init(jax.random.key(seed), None)
        return state, pool.advance(state, images, jax.random.key(seed + 10))

    many = jax.jit(jax.vmap(run))(jnp.arange(3))
    for seed in range(3):
        before = init(jax.random.key(seed), None)
        after = advance(before, images, jax.random.key(seed + 10))
        for one, all_of_them in zip((before, after), many):
            for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(all_of_them)):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b[seed], rtol=1e-6)
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(before)] == [
            (x.shape, x.dtype) for x in jax.tree.leaves(after)]


@pytest.mark.parametrize("options", [
    {"start": 0}, {"start": 5}, {"capacity": 0}, {"every": 0}, {"trained": 1.5}, {"steps": True},
    {"batch_size": 0}, {"forget": 0}, {"trained": 4},
], ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))
def test_bad_settings_are_refused_by_name(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        queue_pool(NETWORK, **{**SIZES, **options})


def test_another_number_of_training_images_is_refused(untrained):
    init, _, pool = untrained
    state = init(jax.random.key(0), None)
    with pytest.raises(ConfigError, match="11 training images, expected 12"):
        pool.advance(state, training_images(0, 11), jax.random.key(0))
