"""Trajectory losses: what trajectory matching compares of a student's and an expert's way.

That may be the end points, the point of the student's way that comes nearest to the expert's end,
or points on the way as well. A `TrajectoryLoss` is a function
(student, segment of parameter trees, inputs, synthetic) -> (loss, metrics).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, unknown
from dd_jax.train.segments import Segment
from dd_jax.train.student import Student
from dd_jax.train.training_step import StepInput
from dd_jax.types import PyTree, SyntheticSet

WAYPOINT_WEIGHTS = ("aggregate", "adaptive")


class TrajectoryLoss(Protocol):
    """How far a student, trained on the synthetic set, is from what an expert did."""

    def __call__(
        self, student: Student, segment: Segment, inputs: StepInput, synthetic: SyntheticSet, /
    ) -> tuple[jax.Array, dict]:
        """Returns a scalar and metrics; `segment` holds trees of parameters."""


def squared_distance(a: PyTree, b: PyTree) -> jax.Array:
    """[] sum over all parameters of (a - b)^2."""
    return sum(jnp.sum((x - y) ** 2) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def relative_distance(reached: PyTree, target: PyTree, start: PyTree) -> jax.Array:
    """[] ||reached - target||^2 / ||start - target||^2, and 0 where start and target are one."""
    way = squared_distance(start, target)
    moved = way > 0
    return jnp.where(moved, squared_distance(reached, target) / jnp.where(moved, way, 1.0), 0.0)


def _dead(segment: Segment) -> dict:
    return {"dead": (squared_distance(segment.start, segment.target) == 0).astype(jnp.float32)}


def endpoint() -> TrajectoryLoss:
    """The student after its last step against the target."""

    def loss(student, segment, inputs, synthetic):
        carry = student.train(student.begin(segment.start), inputs, synthetic)
        value = relative_distance(student.params(carry), segment.target, segment.start)
        return value, _dead(segment)

    return loss


def nearest() -> TrajectoryLoss:
    """The student after that step after which it is nearest to the target, by the L1 distance.

      k = argmin_i ||theta_i - theta*||_1, i = 1..N, the last of equals; L of theta_k

    Derivatives go through steps 1..k only. The metric "steps" is k.

    Source: Liu et al., Dataset Distillation by Automatic Training Trajectories, ECCV 2024.
    """

    def loss(student, segment, inputs, synthetic):
        fixed = jax.lax.stop_gradient(synthetic)

        def go(carry, x):
            carry = student.step(carry, x, fixed)
            gaps = jax.tree.map(lambda a, b: jnp.sum(jnp.abs(a - b)), student.params(carry),
                                segment.target)
            return carry, sum(jax.tree.leaves(gaps))

        gaps = jax.lax.scan(go, student.begin(segment.start), inputs)[1]
        gaps = jnp.where(jnp.isfinite(gaps), gaps, jnp.inf)[::-1]
        last = student.steps - 1 - jnp.argmin(gaps)
        active = (jnp.arange(student.steps) <= last).astype(synthetic.images.dtype)
        inputs = inputs._replace(active=active)
        carry = student.train(student.begin(segment.start), inputs, synthetic)
        value = relative_distance(student.params(carry), segment.target, segment.start)
        return value, {"steps": last + 1, **_dead(segment)}

    return loss


def waypoints(weights: str = "aggregate") -> TrajectoryLoss:
    """The end points, and the student after i N / span steps against epoch t + i of the expert.

      L = sum_i beta_i ||theta_{i N / span} - theta*_{t+i}||^2 / ||theta*_t - theta*_{t+i}||^2

    Args:
      weights: "aggregate" (beta_i = 1) or "adaptive" (beta_i = i / span).

    Raises:
      ConfigError: other weights; segments without waypoints or longer than the student's steps.

    Source: Shen et al., Efficient Dataset Distillation via Alignment with Smooth and High-Quality
    Expert Trajectories.
    """
    if weights not in WAYPOINT_WEIGHTS:
        raise unknown("waypoint weights", weights, WAYPOINT_WEIGHTS)

    def loss(student, segment, inputs, synthetic):
        if isinstance(segment.between, tuple):
            raise ConfigError("the segments have no waypoints",
                              fix="pass Segments(trajectories, span, waypoints=True)")
        span = jax.tree.leaves(segment.between)[0].shape[0] + 1
        if span > student.steps:
            raise ConfigError(f"{student.steps} steps cannot pass {span} waypoints",
                              fix=f"train students for {span} steps or more")
        carry, total = student.begin(segment.start), 0.0
        for i in range(1, span + 1):
            last = i == span
            first, end = student.steps // span * (i - 1), student.steps // span * i
            part = slice(first, None if last else end)
            carry = student.train(carry, jax.tree.map(operator.itemgetter(part), inputs), synthetic)
            passed = operator.itemgetter(i - 1)
            target = segment.target if last else jax.tree.map(passed, segment.between)
            beta = 1.0 if weights == "aggregate" else i / span
            total += beta * relative_distance(student.params(carry), target, segment.start)
        return total, _dead(segment)

    return loss


def balanced_rates(max_start: int) -> Callable[[jax.Array], jax.Array]:
    """AST's factor of the student's loss at a start epoch t.

      log_5(t - h + 8) for t >= h, 1 / log_5(h - t + 8) before,   h = floor(max_start / 2)
    """
    half = max_start // 2

    def factor(epoch: jax.Array) -> jax.Array:
        scale = jnp.log(jnp.abs(epoch - half) + 8.0) / math.log(5.0)
        return jnp.where(epoch >= half, scale, 1 / scale)

    return factor
