"""A queue of networks of all degrees of training: new ones enter at one end, the oldest leave at
the other, and random ones of them are trained on real images.

Source: uitrbn/IDM; Zhao et al., Improved Distribution Matching for Dataset Condensation, CVPR 2023.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError, require_whole
from dd_jax.train.batches import planned
from dd_jax.train.fit import fit, rows_of
from dd_jax.train.supervised import right
from dd_jax.transforms.momentum import decayed_momentum
from dd_jax.types import Network, Pool, PyTree, SyntheticSet

_PLACE, _TRAIN, _NEW, _NEXT = range(4)


class QueueState(NamedTuple):
    """State of a queue with Q places, used in a ring.

    Attributes:
      variables: of the networks, every leaf stacked to [Q, ...]; zeros in places not yet used.
      optimizer: their optimizer states, stacked.
      correct, seen: [Q] int32, training images that each has classified rightly, and in all, since
        they were last forgotten.
      oldest: [] int32, the place of the oldest network; the others follow it.
      alive: [] int32, how many there are.
      current: [] int32, the place of the network that this step uses.
      calls: [] int32, how often the queue has advanced.
    """

    variables: PyTree
    optimizer: PyTree
    correct: jax.Array
    seen: jax.Array
    oldest: jax.Array
    alive: jax.Array
    current: jax.Array
    calls: jax.Array


def accuracy_percent(state: QueueState) -> jax.Array:
    """Training accuracy of the current network in percent, [] float32 in 0..100.

    It is that of the training batches since they were last forgotten, each before the step that was
    taken on it; 0 where there were none.
    """
    correct, seen = (x[state.current].astype(jnp.float32) for x in (state.correct, state.seen))
    return 100.0 * correct / jnp.maximum(seen, 1.0)


def queue_pool(
    network: Network,
    *,
    start: int = 3,
    capacity: int = 100,
    every: int = 30,
    trained: int = 2,
    steps: int = 10,
    batch_size: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    forget: int = 100,
) -> Pool:
    """IDM's queue: a step uses one of its networks, drawn uniformly, and then some are trained.

    Memory is that of `capacity` networks with their optimizer states.

    Args:
      network: the architecture.
      start: random networks at the start, before the one that enters in the first step.
      capacity: networks at the most; one more, and the oldest is dropped.
      every: a new random network enters in the first step and after this many ones.
      trained: networks that are trained after a step, distinct ones, drawn uniformly.
      steps: optimizer steps of such a training, without augmentation.
      batch_size: images per step.
      optimizer: trains the networks, whose states stay with them; SGD of rate 0.01, momentum 0.9
        and coupled weight decay 5e-4 by default.
      forget: the counts behind `accuracy_percent` start anew after this many steps.

    Returns:
      A `Pool` with `QueueState` whose `advance` is given the training images: a `SyntheticSet` of
      `trained * steps * batch_size` real images with one-hot labels, each used once.

    Raises:
      ConfigError: a count that cannot be, `start` above `capacity`, more `trained` than there are;
        in `advance`: another number of images.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> pool = queue_pool(network, start=2, capacity=5)
      >>> accuracy_percent(pool.init(jax.random.key(0), None)).item()
      0.0
    """
    counts = dict(start=start, capacity=capacity, every=every, trained=trained, steps=steps,
                  batch_size=batch_size, forget=forget)
    for name, value in counts.items():
        require_whole(f"pool {name}", value, example=10)
    if start > capacity:
        raise ConfigError(f"pool start is {start} and its capacity {capacity}",
                          fix=f"pass capacity={start} or more")
    alive = min(start + 1, capacity)  # with the one that enters in the first step
    if trained > alive:
        raise ConfigError(f"pool trained is {trained}, but there are {alive} networks at first",
                          fix=f"pass start={trained} or more")
    if optimizer is None:
        optimizer = decayed_momentum(0.01, momentum=0.9, weight_decay=5e-4)

    def init(key: jax.Array, synthetic: SyntheticSet) -> QueueState:
        return _started(network, optimizer, key, start=alive, capacity=capacity)

    def draw(state: QueueState, key: jax.Array) -> PyTree:
        return _at(state.variables, state.current)

    def train(i, state: QueueState, synthetic: SyntheticSet, places, key) -> QueueState:
        rows = (i * steps * batch_size + jnp.arange(steps * batch_size)).reshape(steps, batch_size)
        return _trained(network, optimizer, state, synthetic, places[i], rows,
                        jax.random.fold_in(key, i))

    def advance(state: QueueState, synthetic: SyntheticSet, key: jax.Array) -> QueueState:
        given, needed = synthetic.images.shape[0], trained * steps * batch_size
        if given != needed:
            raise ConfigError(f"the queue got {given} training images, expected {needed}",
                              fix=f"give it {trained} * {steps} * {batch_size} of them")
        place_key, train_key, new_key, next_key = (
            jax.random.fold_in(key, use) for use in (_PLACE, _TRAIN, _NEW, _NEXT))
        synthetic, places = jax.lax.stop_gradient(synthetic), _distinct(state, place_key, trained)
        state = jax.lax.fori_loop(
            0, trained, lambda i, state: train(i, state, synthetic, places, train_key), state)
        calls = state.calls + 1
        state = _pushed(network, optimizer, state, calls % every == 0, new_key)
        kept = jnp.where(calls % forget == 0, 0, 1)
        return state._replace(
            correct=kept * state.correct, seen=kept * state.seen, calls=calls,
            current=_drawn(state, next_key),
        )

    return Pool(init=init, draw=draw, advance=advance)


def _drawn(state: QueueState, key: jax.Array) -> jax.Array:
    """[] int32, the place of a network, all of them equally likely."""
    place = state.oldest + jax.random.randint(key, (), 0, state.alive, jnp.int32)
    return place % state.seen.shape[0]


def _distinct(state: QueueState, key: jax.Array, count: int) -> jax.Array:
    """[count] int32, places of as many networks, every choice equally likely."""
    capacity = state.seen.shape[0]
    age = (jnp.arange(capacity) - state.oldest) % capacity  # the place of the oldest has 0
    noise = jnp.where(age < state.alive, jax.random.uniform(key, (capacity,)), -1.0)
    return jax.lax.top_k(noise, count)[1].astype(jnp.int32)


def _started(network, optimizer, key: jax.Array, *, start: int, capacity: int) -> QueueState:
    """A queue with new networks in its first places."""
    draw_key, *keys = jax.random.split(key, start + 1)
    first = jax.tree.map(lambda *x: jnp.stack(x), *[network.init(k) for k in keys])
    variables = jax.tree.map(
        lambda x: jnp.pad(x, ((0, capacity - start), *((0, 0),) * (x.ndim - 1))), first)
    zero, none = jnp.zeros((), jnp.int32), jnp.zeros((capacity,), jnp.int32)
    state = QueueState(variables, jax.vmap(optimizer.init)(variables["params"]), none, none,
                       zero, jnp.full((), start, jnp.int32), zero, zero)
    return state._replace(current=_drawn(state, draw_key))


def _trained(network, optimizer, state: QueueState, synthetic, place, rows, key) -> QueueState:
    """Trains the network of a place on the images at rows [steps, B]."""
    variables, opt_state, correct = _at((state.variables, state.optimizer, state.correct), place)
    fitted = fit(
        network, variables, state=opt_state, optimizer=optimizer, key=key, measure=right,
        take=rows_of(synthetic.images, synthetic.labels),
        batches=planned(rows, epochs=1, steps=rows.shape[0]),
    )
    entry = (*fitted[:2], correct + fitted.measured.astype(jnp.int32))
    stacks = _put((state.variables, state.optimizer, state.correct), place, entry)
    return state._replace(variables=stacks[0], optimizer=stacks[1], correct=stacks[2],
                          seen=state.seen.at[place].add(rows.size))


def _pushed(network, optimizer, state: QueueState, due: jax.Array, key) -> QueueState:
    """With a new network where one is due, in the place of the oldest where all are taken."""
    capacity = state.seen.shape[0]
    full, place = state.alive == capacity, (state.oldest + state.alive) % capacity

    def new():
        variables = network.init(key)
        zero = jnp.zeros((), jnp.int32)
        return variables, optimizer.init(variables["params"]), zero, zero

    stacks = (state.variables, state.optimizer, state.correct, state.seen)
    # Only one place goes through the condition, so that the stacks need not be copied.
    entry = jax.lax.cond(due, new, lambda: _at(stacks, place))
    stacks = _put(stacks, place, entry)
    oldest = jnp.where(due & full, (state.oldest + 1) % capacity, state.oldest)
    alive = jnp.where(due & ~full, state.alive + 1, state.alive)
    return QueueState(*stacks, oldest, alive, state.current, state.calls)


def _at(stacks: PyTree, place: jax.Array) -> PyTree:
    return jax.tree.map(
        lambda x: jax.lax.dynamic_index_in_dim(x, place, keepdims=False), stacks)


def _put(stacks: PyTree, place: jax.Array, entry: PyTree) -> PyTree:
    return jax.tree.map(
        lambda x, e: jax.lax.dynamic_update_index_in_dim(x, e.astype(x.dtype), place, 0),
        stacks, entry)
