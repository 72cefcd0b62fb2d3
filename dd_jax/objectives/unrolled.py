"""A network trained on the synthetic set classifies real images.

  L(S) = mean_b CE(f(theta_N(S); x_b), y_b),   theta_0 a network of a pool

The derivative goes through the training, by the adjoint of the student. With a window it goes
through W of the steps and L is that of the network at the window's end, see `window.py`.

Sources: Wang et al., Dataset Distillation, 2018; Feng et al., Embarrassingly Simple Dataset
Distillation, ICLR 2024; Deng and Russakovsky, Remember the Past, NeurIPS 2022.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.backend import check_mapping, map_over, mean_in_chunks
from dd_jax.data import rows_per_class, rows_uniform
from dd_jax.errors import ConfigError, require_at_least_zero, require_whole
from dd_jax.objectives.matching import check_pool, pool_features
from dd_jax.train.built import require_built
from dd_jax.train.student import Student
from dd_jax.train.student_rates import check_student_rates
from dd_jax.train.window import RandomWindow, WindowState, first_place, next_place
from dd_jax.types import (
    Augmentation,
    Batch,
    Network,
    Objective,
    Pool,
    PyTree,
    RealData,
    SyntheticSet,
)

_POOL, _WINDOW, _MEASURE, _PLAN = range(4)


class UnrolledState(NamedTuple):
    """State of `unrolled`.

    Attributes:
      pool: the pool's state.
      window: the window's, or ().
      plan: [2] uint32, the key of the student's batches in the next step where the pool has the
        same; or ().
    """

    pool: PyTree
    window: WindowState | tuple
    plan: jax.Array | tuple = ()


def unrolled(
    student: Student,
    *,
    pool: Pool,
    batch_size: int,
    window: RandomWindow | None = None,
    augmentation: Augmentation | None = None,
    per_class: bool = False,
    rate: float | None = None,
    networks: int = 1,
    shared_batch: bool = False,
    how: str = "auto",
    bound: str = "",
) -> Objective:
    """The cross-entropy of real images after training on the synthetic ones, see the module.

    Args:
      student: how a network is trained on the set, and how that is differentiated.
      pool: where its training begins; nothing is differentiated there. One that watches is given
        the real batch, flat.
      batch_size: real images per step, drawn without replacement.
      window: which steps are differentiated; None for all.
      augmentation: of the real images, one draw each. Where the student has one draw for all of
        its steps, the real images have the same one.
      per_class: `batch_size` counts the images of each class.
      rate: of the student, for a set that has none of its own.
      networks: per step, each drawn from the pool and trained by itself; losses are averaged.
      shared_batch: the pool advances on the images of the student's first step, not on the whole
        set, as where its network takes the step that was differentiated. One network only.
      how: "map" or "vmap" over networks; by backend by default.
      bound: of the objective: why the images have to stay as they are, where the student's plan
        takes them in the order in which they are stored.

    Returns:
      An `Objective` over `Batch(images [batch_size, H, W, C], labels)`, or [K, batch_size, ...] by
      class, with `UnrolledState`. Metrics: "accuracy" on that batch, "rate" (the mean of several)
      and "window", n0. An inner loop that explodes has a loss that is not finite.

    Raises:
      ConfigError: if the window's horizon is not the number of the student's steps, if a number is
        out of its range, or if a record is something else, such as its factory; from `init`: if the
        set has no rate, or another number of rates than steps.

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.train import student
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> objective = unrolled(student(network, steps=5), pool=pools.fresh_pool(network),
      ...                      batch_size=16, rate=0.1)
    """
    _check(student, pool, batch_size, window, augmentation, rate, networks, how)
    if shared_batch and networks > 1:
        raise ConfigError(f"networks is {networks}, whose batches the pool cannot all have",
                          fix="pass networks=1 or shared_batch=False")
    training = _Training(student, pool, batch_size, window, augmentation, per_class, rate,
                         networks, how, shared_batch)
    return Objective(
        loss=partial(_loss, training),
        init=partial(_init, training),
        sample=partial(_sample, training),
        advance=partial(_advance, training),
        embed=partial(_embed, training),
        bound=bound,
    )


@dataclasses.dataclass(frozen=True)
class _Training:
    """The checked settings of one `unrolled`."""

    student: Student
    pool: Pool
    batch_size: int
    window: RandomWindow | None
    augmentation: Augmentation | None
    per_class: bool
    rate: float | None
    networks: int
    how: str
    shared_batch: bool


def _init(of: _Training, key: jax.Array, synthetic: SyntheticSet) -> UnrolledState:
    synthetic = _rated(of, synthetic)
    check_student_rates(synthetic.learning_rate, of.student.steps)
    place = () if of.window is None else first_place(of.window, jax.random.fold_in(key, _WINDOW))
    return UnrolledState(of.pool.init(jax.random.fold_in(key, _POOL), synthetic), place,
                         _next_plan(of, key))


def _sample(of: _Training, data: RealData, state: UnrolledState, key: jax.Array) -> jax.Array:
    return (rows_per_class if of.per_class else rows_uniform)(data, key, of.batch_size)


def _loss(of: _Training, synthetic: SyntheticSet, state: UnrolledState, batch: Batch, key):
    synthetic = _rated(of, synthetic)
    value, accuracy = _mean_risk(of, synthetic, state, batch, key)
    metrics = {"accuracy": accuracy, "rate": jnp.mean(synthetic.learning_rate)}
    if of.window is not None:
        metrics["window"] = state.window.start
    return value, metrics


def _advance(of: _Training, synthetic: SyntheticSet, state: UnrolledState, batch: Batch, key):
    synthetic = jax.lax.stop_gradient(_rated(of, synthetic))
    keys = [jax.random.fold_in(key, use) for use in (_POOL, _WINDOW, _MEASURE)]
    real = (_flat(batch),) if of.pool.watches else ()
    place = state.window
    if of.window is not None:
        place = next_place(of.window, place, keys[1],
                           lambda: _mean_risk(of, synthetic, state, batch, keys[2])[0])
    if of.shared_batch:
        synthetic = _of_first_step(of.student, synthetic, state)
    return UnrolledState(of.pool.advance(state.pool, synthetic, keys[0], *real), place,
                         _next_plan(of, key))


def _next_plan(of: _Training, key: jax.Array) -> jax.Array | tuple:
    """The key of the next step's batches as numbers; () where nobody shares it."""
    return jax.random.key_data(jax.random.fold_in(key, _PLAN)) if of.shared_batch else ()


def _of_first_step(student: Student, synthetic: SyntheticSet, state: UnrolledState) -> SyntheticSet:
    """The images that the student took in its first step, with their labels and weights."""
    key = jax.random.wrap_key_data(state.plan)
    rows = student.plan(key, synthetic.images.shape[0]).rows

    def taken(x):
        return x if x is None or rows is None else x[rows[0]]

    return synthetic._replace(images=taken(synthetic.images), labels=taken(synthetic.labels),
                              weights=taken(synthetic.weights))


def _embed(of: _Training, state: UnrolledState, images: jax.Array, key: jax.Array) -> jax.Array:
    return pool_features(of.student.network, of.pool, state.pool, images, key)


def _mean_risk(of: _Training, synthetic: SyntheticSet, state: UnrolledState, batch: Batch, key):
    """Loss and accuracy on real images, averaged over so many networks."""
    batch = _flat(batch)
    if of.networks == 1:
        return _network_risk(of, synthetic, state, batch, key)
    keys = jax.random.split(key, of.networks)
    each = map_over(lambda key: _network_risk(of, synthetic, state, batch, key), keys, how=of.how)
    return jax.tree.map(jnp.mean, each)


def _network_risk(of: _Training, synthetic: SyntheticSet, state: UnrolledState, batch: Batch, key):
    """Loss and accuracy of one network of the pool after its training on the set."""
    draw_key, plan_key, real_key = jax.random.split(key, 3)
    variables = jax.lax.stop_gradient(of.pool.draw(state.pool, draw_key))
    variables = _of_type(variables, synthetic.images.dtype)
    if of.shared_batch:
        plan_key = jax.random.wrap_key_data(state.plan)
    inputs = of.student.plan(plan_key, synthetic.images.shape[0])
    start = state.window.start if of.window is not None else None
    params = _trained(of, synthetic, variables["params"], inputs, start)
    if of.augmentation is not None:
        shared = of.student.shared_draw
        drawn = of.augmentation.draw(inputs.key[0] if shared else real_key,
                                     1 if shared else batch.labels.size)
        batch = batch._replace(images=of.augmentation.apply(drawn, batch.images))
    return _risk(of.student.network, {**variables, "params": params}, batch)


def _trained(of: _Training, synthetic: SyntheticSet, params: PyTree, inputs, start) -> PyTree:
    """The student's parameters after its last step, or at the end of the window."""
    carry = of.student.begin(params)
    if of.window is not None:
        carry, inputs = _at_window(of.student, carry, inputs, synthetic, start, of.window.length)
    return of.student.params(of.student.train(carry, inputs, synthetic))


def _rated(of: _Training, synthetic: SyntheticSet) -> SyntheticSet:
    """The set with a learning rate: its own, or the one that is set."""
    if synthetic.learning_rate is not None or of.rate is None:
        return synthetic
    return synthetic._replace(learning_rate=jnp.asarray(of.rate, synthetic.images.dtype))


def _check(student, pool, batch_size, window, augmentation, rate, networks, how) -> None:
    require_built("student", student, Student)
    check_pool(pool, real=True)
    require_built("window", window, RandomWindow, optional=True)
    require_built("augmentation", augmentation, Augmentation, optional=True)
    require_whole("batch_size", batch_size, example=1024)
    require_whole("networks", networks)
    check_mapping(how)
    if rate is not None:
        require_at_least_zero("rate", rate, example=0.01)
    if window is not None and window.horizon != student.steps:
        raise ConfigError(f"the window's horizon is {window.horizon}, the student has "
                          f"{student.steps} steps", fix=f"pass horizon={student.steps}")


def _at_window(student: Student, carry, inputs, synthetic: SyntheticSet, start, length: int):
    """The carry after `start` steps that leave nothing behind, and the inputs of the next ones."""
    carry, fixed = jax.lax.stop_gradient((carry, synthetic))

    def early(i, carry):
        return student.step(carry, jax.tree.map(lambda x: x[i], inputs), fixed)

    carry = jax.lax.stop_gradient(jax.lax.fori_loop(0, start, early, carry))
    steps = start + jnp.arange(length)
    return carry, jax.tree.map(lambda x: x[steps], inputs)


def _risk(network: Network, variables: PyTree, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """(mean cross-entropy, accuracy); its derivative runs the images again, chunk by chunk."""
    # As in the student's steps: running statistics of batch normalisation are not kept.
    whole = batch.labels.shape[0] if "batch_stats" in variables else None

    @jax.checkpoint
    def of(part):
        images, labels = part
        logits = network.apply(variables, images, True).logits
        each = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        return each, (jnp.argmax(logits, axis=-1) == labels).astype(each.dtype)

    return mean_in_chunks(of, (batch.images, batch.labels), size=whole)


def _flat(batch: Batch) -> Batch:
    """Images [B, H, W, C], also of a batch by class."""
    return Batch(batch.images.reshape(-1, *batch.images.shape[-3:]), batch.labels.reshape(-1))


def _of_type(variables: PyTree, dtype) -> PyTree:
    """Networks are drawn in float32; a student in float64 starts in float64."""
    return jax.tree.map(lambda x: x.astype(dtype), variables)
