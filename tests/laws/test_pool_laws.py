"""The laws of every pool."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import augment, nets, pools
from dd_jax.types import Batch, SyntheticSet
from tests.laws import members

MLP = nets.mlp(members.SPEC, width=4)
NORMALISED = nets.convnet(members.SPEC, depth=1, width=2, norm="batch")
QUEUE = dict(trained=2, steps=2, batch_size=3)


def _bank(**options):
    ends = [jax.vmap(MLP.init)(jax.random.split(jax.random.key(seed), 3)) for seed in range(2)]
    return pools.bank_pool(tuple(ends), **options)


# name -> (network, pool, steps in which it meets all of its cases).
POOLS = {
    "fresh": (MLP, lambda: pools.fresh_pool(MLP), 1),
    "fixed": (MLP, lambda: pools.fixed_pool(MLP, seed=3), 1),
    "bank": (MLP, _bank, 1),
    "bank/trained": (MLP, lambda: _bank(interpolated=False), 1),
    "ageing": (NORMALISED, lambda: pools.ageing_pool(NORMALISED, size=2, max_age=2), 3),
    "ageing/several": (MLP, lambda: pools.ageing_pool(
        MLP, size=1, max_age=2, max_batch=3, train_steps=(1, 3)), 3),
    "inner_trained": (NORMALISED, lambda: pools.inner_trained_pool(
        NORMALISED, uses=3, epochs=2, batch_size=3, mix=0.5,
        augmentation=augment.dsa(members.SHAPE)), 3),
    "inner_trained/untrained": (MLP, lambda: pools.inner_trained_pool(MLP, uses=2, epochs=0), 2),
    "plateau": (MLP, lambda: pools.plateau_pool(
        MLP, max_uses=3, max_epochs=4, window=2, batch_size=3), 3),
    "pretrained": (NORMALISED, lambda: pools.pretrained_pool(NORMALISED, size=2, max_age=3), 2),
    "pretrained/released": (MLP, lambda: pools.pretrained_pool(
        MLP, size=1, max_age=2, reset_age=False), 3),
    "queue": (NORMALISED, lambda: pools.queue_pool(
        NORMALISED, start=1, capacity=2, every=2, forget=3, **QUEUE), 4),
    "restarted": (MLP, lambda: pools.restarting_pool(MLP, batch_size=3, window=1), 3),
}


# One worker meets all laws of a member, so that what a law has compiled serves the next one.
@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name))
                        for name in sorted(POOLS)])
def name(request):
    return request.param


def images(name) -> SyntheticSet:
    """What `advance` is given to train on."""
    if name != "queue":
        return members.start(labels="one_hot")
    count = QUEUE["trained"] * QUEUE["steps"] * QUEUE["batch_size"]
    data = members.toy_data()
    return SyntheticSet(jnp.asarray(data.images[:count], jnp.float32) / 255,
                        jnp.eye(members.CLASSES)[data.labels[:count]])


def real(name) -> Batch:
    """What a pool that watches looks at: images by class for a plateau, else of one batch."""
    data = members.toy_data()
    shape = (members.CLASSES, 3) if name == "plateau" else (6,)
    labels = jnp.sort(data.labels[:6])
    rows = jnp.argsort(data.labels[:6])
    return Batch((jnp.asarray(data.images[rows], jnp.float32) / 255).reshape(
        *shape, *members.SHAPE), labels.reshape(shape))


def advanced(name, pool, state, synthetic, key):
    return pool.advance(state, synthetic, key, *((real(name),) if pool.watches else ()))


@functools.cache
def compiled(name):
    """(init, draw, advance) of a seed and a state, each one program."""
    pool, synthetic = POOLS[name][1](), images(name)
    init = jax.jit(lambda seed: pool.init(jax.random.key(seed), synthetic))
    draw = jax.jit(lambda state, seed: pool.draw(state, jax.random.key(seed)))
    advance = jax.jit(
        lambda state, seed: advanced(name, pool, state, synthetic, jax.random.key(seed)))
    return init, draw, advance


def trail(name, seed):
    """The states of a pool from step to step."""
    init, _, advance = compiled(name)
    states = [init(seed)]
    for step in range(POOLS[name][2]):
        states.append(advance(states[-1], 100 * seed + step))
    return states


def layout(tree):
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in leaves]


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b),
                                                    strict=True))


def test_trees_shapes_and_dtypes_stay(name):
    """Weak types, too: a loop of many steps carries the state."""
    network, _, _ = POOLS[name]
    _, draw, _ = compiled(name)
    wanted = layout(jax.eval_shape(network.init, jax.random.key(0)))
    states = trail(name, 0)
    for state in states:
        assert layout(state) == layout(states[0])
        variables = draw(state, 7)
        assert [jax.tree.structure(variables), *layout(variables)[1]] == [wanted[0], *wanted[1]]
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(variables))


def test_a_key_gives_its_networks(name):
    _, draw, _ = compiled(name)
    once, again, *others = (trail(name, seed) for seed in (1, 1, 2, 3, 4))
    found = draw(once[-1], 3)
    assert same(once, again) and same(found, draw(again[-1], 3))
    drawn = [same(found, draw(other[-1], 10 + i)) for i, other in enumerate(others)]
    assert all(drawn) == (name == "fixed")


def test_drawing_leaves_the_state_as_it_is(name):
    _, draw, _ = compiled(name)
    state = trail(name, 1)[-1]
    before = jax.tree.map(np.array, state)
    draw(state, 5)
    assert same(state, before)


def test_no_key_is_used_twice(name):
    pool, synthetic = POOLS[name][1](), images(name)

    def step(key):
        init_key, draw_key, advance_key = jax.random.split(key, 3)
        state = pool.init(init_key, synthetic)
        return pool.draw(state, draw_key), advanced(name, pool, state, synthetic, advance_key)

    with jax.debug_key_reuse(True):  # checks what is traced
        jax.jit(step).trace(jax.random.key(0))
