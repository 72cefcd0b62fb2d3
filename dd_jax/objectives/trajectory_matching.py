"""Trajectory matching: a student trained on the synthetic set arrives where an expert, trained on
real images, arrived from the same start.

  L = ||theta_N - theta*_{t+span}||^2 / ||theta*_t - theta*_{t+span}||^2,   theta_0 = theta*_t

Sources: Cazenavette et al., Dataset Distillation by Matching Training Trajectories, CVPR 2022, and
the papers named at `trajectory_loss.py` and in `methods`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import require_at_least_zero
from dd_jax.objectives.trajectory_loss import TrajectoryLoss, endpoint
from dd_jax.train.experts import unflatten
from dd_jax.train.segments import Segment, Segments, StartEpochs, check_starts
from dd_jax.train.student import Student
from dd_jax.train.student_rates import check_student_rates
from dd_jax.types import HostRows, Network, Objective, PyTree, SyntheticSet

_EXPERT, _EPOCH = range(2)
_PLAN, _SHAKE = range(2)


class TrajectoryState(NamedTuple):
    """State of `trajectory_matching`: [] int32, the steps taken."""

    step: jax.Array


def trajectory_matching(
    student: Student,
    segments: Segments,
    *,
    starts: StartEpochs,
    loss: TrajectoryLoss | None = None,
    rate_schedule: Callable[[jax.Array], jax.Array] | None = None,
    shake: float = 0.0,
    relabel: bool = False,
) -> Objective:
    """The distance between where students and experts arrive, over how far the expert went.

    Args:
      student: how a network is trained on the set; the set's `learning_rate` is its rate.
      segments: of stored trajectories of the student's network.
      starts: from which epochs segments start, at which step.
      loss: what is compared, see `trajectory_loss.py`; None for the end points.
      rate_schedule: start epoch t -> factor of the student's rate.
      shake: strength of noise on the start's convolution kernels, w (1 + shake * n / ||n||).
      relabel: labels are the target's probabilities for the images; the set's own are not used.

    Returns:
      An `Objective` with `TrajectoryState`; one segment per step. Metrics: "rate" (the mean of
      several) and those of `loss`. A segment whose expert did not move has loss 0 and counts in
      "dead".

    Raises:
      ConfigError: start epochs that do not fit the store; at `init`, a set without a learning rate
        or with as many as the student has no steps.
    """
    check_starts(starts, span=segments.span, epochs=segments.trajectories.epochs)
    require_at_least_zero("shake", shake, example=1.0)
    compare = loss or endpoint()
    experts = len(segments.trajectories.experts)
    like = jax.eval_shape(student.network.init, jax.random.key(0))["params"]
    as_tree = unflatten(like)

    def init(key: jax.Array, synthetic: SyntheticSet) -> TrajectoryState:
        check_student_rates(synthetic.learning_rate, student.steps)
        return TrajectoryState(jnp.zeros((), jnp.int32))

    def sample(data, state: TrajectoryState, key: jax.Array) -> HostRows:
        draw = [jax.random.fold_in(key, use) for use in (_EXPERT, _EPOCH)]
        expert = jax.random.randint(draw[0], (), 0, experts, jnp.int32)
        epoch = jax.random.randint(draw[1], (), starts.low, starts.now(state.step), jnp.int32)
        return HostRows((expert, epoch), segments)

    def matching(synthetic: SyntheticSet, state: TrajectoryState, batch: Segment, key: jax.Array):
        plan_key, shake_key = (jax.random.fold_in(key, use) for use in (_PLAN, _SHAKE))
        epoch = batch.epoch
        # Stored in float32; a student in float64 starts and ends in float64.
        batch = jax.tree.map(lambda x: as_trees(x.astype(synthetic.images.dtype)),
                             batch._replace(epoch=()))
        if shake:
            batch = batch._replace(start=shaken(batch.start, shake_key, shake))
        rate = synthetic.learning_rate
        if rate_schedule is not None:
            synthetic = synthetic._replace(learning_rate=rate * rate_schedule(epoch))
        if relabel:
            labels = target_labels(student.network, batch.target, synthetic.images)
            synthetic = synthetic._replace(labels=labels)
        inputs = student.plan(plan_key, synthetic.images.shape[0])
        value, metrics = compare(student, batch, inputs, synthetic)
        return value, {"rate": jnp.mean(rate), **metrics}

    def as_trees(flat: jax.Array):
        return as_tree(flat) if flat.ndim == 1 else jax.vmap(as_tree)(flat)

    def advance(synthetic, state: TrajectoryState, batch, key) -> TrajectoryState:
        return TrajectoryState(state.step + 1)

    return Objective(init=init, sample=sample, loss=matching, advance=advance, real=False)


def target_labels(network: Network, params: PyTree, images: jax.Array) -> jax.Array:
    """[M, K] probabilities that a network gives, without derivative."""
    logits = network.apply({"params": params}, jax.lax.stop_gradient(images)).logits
    return jax.lax.stop_gradient(jax.nn.softmax(logits))


def shaken(params, key: jax.Array, strength: float):
    """Parameters whose convolution kernels w are w (1 + strength * n / ||n||), n normal noise.

    Args:
      params: a tree; leaves of four axes are convolution kernels.
      key: PRNG key.
      strength: of the noise, whose norm over a kernel is 1 before it.

    Returns:
      A tree like `params`.
    """
    leaves, treedef = jax.tree.flatten(params)

    def moved(i, w):
        if w.ndim != 4:
            return w
        noise = jax.random.normal(jax.random.fold_in(key, i), w.shape, w.dtype)
        return w + strength * noise / jnp.linalg.norm(noise) * w

    return jax.tree.unflatten(treedef, [moved(i, w) for i, w in enumerate(leaves)])
