"""Repeated random subsets: what rounds take, and that without replacement they are epochs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.train import fit, permuted_epochs, rows_of, rs2, rs2_rows, rs2_size, rs2_steps
from tests.laws import members

NETWORK = nets.mlp(members.SPEC, width=4, depth=2)
KEY = jax.random.key(3)


def rounds(size, share, numbers, *, replace, key=KEY):
    """[(rows that count, in their order)] of several rounds, the number traced."""
    take = jax.jit(lambda number: rs2_rows(key, size, share, number, replace=replace))
    found = [take(number) for number in numbers]
    assert all(rows.dtype == jnp.int32 and rows.shape == counted.shape == (rs2_size(size, share),)
               for rows, counted in found)
    return [np.asarray(rows)[np.asarray(counted)].tolist() for rows, counted in found]


@pytest.mark.parametrize("size,share,count", [
    (60_000, 0.1, 6000), (60_000, 0.3, 18_000), (100, 0.29, 29), (10, 0.35, 3), (7, 1.0, 7),
    (7, 1, 7), (3, 0.4, 1),
])
def test_a_round_takes_the_floor_of_its_share(size, share, count):
    assert rs2_size(size, share) == count


@pytest.mark.parametrize("size,share,sizes", [
    (20, 0.25, [5, 5, 5, 5]), (22, 0.37, [8, 8, 6]), (10, 0.3, [3, 3, 3, 1]), (9, 1.0, [9]),
    (11, 0.75, [8, 3]),
])
def test_without_replacement_blocks_cut_up_one_permutation_and_the_last_is_the_tail(
        size, share, sizes):
    blocks = len(sizes)
    found = rounds(size, share, range(3 * blocks), replace=False)
    assert [len(rows) for rows in found] == 3 * sizes
    passes = [sum(found[i: i + blocks], []) for i in range(0, 3 * blocks, blocks)]
    assert all(sorted(rows) == list(range(size)) for rows in passes)
    assert len({tuple(rows) for rows in passes}) == 3


def test_with_replacement_every_subset_is_drawn_anew():
    found = rounds(10, 0.3, range(900), replace=True)
    assert all(len(set(rows)) == 3 for rows in found)
    # Each row is in a round with probability 3/10, the variance of its count 900 * 0.3 * 0.7.
    counts = np.bincount(np.ravel(found), minlength=10)
    assert ((counts - 270) ** 2 / 189).sum() * 0.9 < 27.9  # 9 degrees of freedom, 0.1 %
    both = [set(a) & set(b) for a, b in zip(found[::2], found[1::2])]
    assert abs(np.mean([len(shared) for shared in both]) - 0.9) < 0.15  # 3 * 3 / 10


@pytest.mark.parametrize("replace", [True, False])
def test_a_round_is_a_pure_function_of_its_key_and_number(replace):
    first, again = (rounds(22, 0.4, [5, 2, 5], replace=replace) for _ in "ab")
    assert first == again and first[0] == first[2] != first[1]
    assert rounds(22, 0.4, [5], replace=replace, key=jax.random.key(4)) != first[:1]

    def scanned(number, _):
        return number + 1, rs2_rows(KEY, 22, 0.4, number, replace=replace)

    rows, counted = jax.jit(lambda: jax.lax.scan(scanned, 0, length=6)[1])()
    assert rows[5][counted[5]].tolist() == first[0]


def trained(batches, steps, *, norm=None, watch=None):
    images, labels = members.toy_data().images[:22] / 255.0, members.toy_data().labels[:22]
    network = NETWORK if norm is None else nets.convnet(members.SPEC, depth=1, width=2, norm=norm)
    optimizer = optax.chain(optax.add_decayed_weights(5e-4),
                            optax.sgd(optax.cosine_decay_schedule(0.1, steps), momentum=0.9))

    @jax.jit
    def run(images, labels):
        variables = network.init(jax.random.key(0))
        return fit(network, variables, take=rows_of(images, jax.nn.one_hot(labels, 2)),
                   batches=batches, optimizer=optimizer, key=jax.random.key(1), watch=watch)

    return run(images, labels)


# Blocks of whole batches, and a tail of whole batches or of a batch that is filled up.
@pytest.mark.parametrize("share,batch_size,blocks", [(0.5, 11, 2), (0.37, 4, 3), (0.19, 2, 6),
                                                     (1.0, 5, 1)])
@pytest.mark.parametrize("norm", [None, "batch"])
def test_without_replacement_it_is_ordinary_training_to_the_bit(share, batch_size, blocks, norm):
    """X rounds are X / L epochs over the same permutations."""
    epochs, size = 3, 22
    orders = jnp.asarray([
        sum(rounds(size, share, range(e * blocks, (e + 1) * blocks), replace=False), [])
        for e in range(epochs)], jnp.int32)
    plain = permuted_epochs(size, batch_size, epochs)._replace(
        begin=lambda key, epoch: orders[epoch])
    subsets = rs2(KEY, size, share, batch_size, epochs * blocks, replace=False)
    steps = rs2_steps(size, share, batch_size, epochs * blocks, replace=False)
    assert steps == epochs * plain.steps
    wanted, found = trained(plain, steps, norm=norm), trained(subsets, steps, norm=norm)
    assert wanted.optimizer[1][1].count == steps
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("share,batch_size,count", [
    (0.4, 4, 7), (0.4, 3, 7), (0.4, 100, 7), (0.1, 1, 5), (0.25, 5, 3),
])
def test_the_schedule_counts_its_own_steps(replace, share, batch_size, count):
    """The number is that of the steps taken, and the rate ends where the last of them is."""
    steps = rs2_steps(22, share, batch_size, count, replace=replace)
    rates = trained(rs2(KEY, 22, share, batch_size, count, replace=replace), steps).optimizer
    assert rates[1][1].count == steps
    taken = rounds(22, share, range(count), replace=replace)
    assert steps == sum(-(-len(rows) // min(batch_size, rs2_size(22, share))) for rows in taken)


def test_a_training_goes_on_at_its_round_and_can_be_watched():
    batches = rs2(KEY, 22, 0.4, 4, 6, replace=False)
    steps = rs2_steps(22, 0.4, 4, 6, replace=False)
    images, labels = members.toy_data().images[:22] / 255.0, members.toy_data().labels[:22]
    take, optimizer = rows_of(images, jax.nn.one_hot(labels, 2)), optax.sgd(
        optax.cosine_decay_schedule(0.1, steps), momentum=0.9)

    @jax.jit
    def run(variables, state, first):
        return fit(NETWORK, variables, state=state, take=take, first=first, optimizer=optimizer,
                   batches=batches._replace(epochs=2), key=jax.random.key(1))

    variables = NETWORK.init(jax.random.key(0))
    state = optimizer.init(variables["params"])
    for first in (0, 2, 4):
        variables, state, *_ = run(variables, state, first)
    whole = jax.jit(lambda variables: fit(
        NETWORK, variables, take=take, batches=batches, optimizer=optimizer,
        key=jax.random.key(1), watch=lambda v: v["params"]["head"]["bias"]))(
            NETWORK.init(jax.random.key(0)))
    jax.tree.map(np.testing.assert_array_equal, variables, whole.variables)
    assert whole.watched.shape == (6, 2)


@pytest.mark.parametrize("build,said", [
    (lambda: rs2_size(10, 0.0), "share is 0.0"), (lambda: rs2_size(10, 1.5), "share is 1.5"),
    (lambda: rs2_size(10, True), "share is True"),
    (lambda: rs2_size(10, 0.05), "0.05 of 10 images is none; pass share=0.1 or more"),
    (lambda: rs2(KEY, 0, 0.5, 4, 2), "size is 0"),
    (lambda: rs2(KEY, 10, 0.5, 0, 2), "batch_size is 0"),
    (lambda: rs2_steps(10, 0.5, 2, 0), "rounds is 0"),
])
def test_what_cannot_be_is_refused(build, said):
    with pytest.raises(ConfigError, match=said):
        build()
