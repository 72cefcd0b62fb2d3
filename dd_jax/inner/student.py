"""A network's training on the synthetic set, as inner loops run it: step, plan and derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from dd_jax.errors import require_whole
from dd_jax.inner.training_step import StepInput, batch_plan, start, training_step
from dd_jax.inner.unroll import unroll
from dd_jax.types import Augmentation, Network, PyTree, SyntheticSet


class Student(NamedTuple):
    """An inner training loop of a fixed number of steps.

    Attributes:
      network: the architecture.
      steps: N.
      begin: (params) -> carry of the loop before its first step.
      params: (carry) -> params.
      plan: (key, size M) -> `StepInput` with the leading axis N: batches and keys of every step.
      step: (carry, input, synthetic) -> carry.
      train: (carry, inputs, synthetic) -> carry after all inputs, with the loop's derivative.
    """

    network: Network
    steps: int
    begin: Callable[[PyTree], PyTree]
    params: Callable[[PyTree], PyTree]
    plan: Callable[[jax.Array, int], StepInput]
    step: Callable[..., PyTree]
    train: Callable[[PyTree, StepInput, SyntheticSet], PyTree]


def student(
    network: Network,
    *,
    steps: int,
    batch_size: int | None = None,
    optimizer: optax.GradientTransformation | None = None,
    augmentation: Augmentation | None = None,
    adjoint: Callable[..., PyTree] | None = None,
) -> Student:
    """Training by cross-entropy at the set's own learning rate, differentiable in the set.

    Args:
      network: the architecture.
      steps: N.
      batch_size: synthetic images per step; None for the whole set.
      optimizer: gradients -> directions of unit rate; None for plain SGD.
      augmentation: one draw per image in every step; images get their gradient through it.
      adjoint: how the loop is differentiated, see `unroll`; by default with checkpoints.

    Returns:
      A `Student`.

    Raises:
      ConfigError: `steps` or `batch_size` below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> small = student(network, steps=3)
      >>> synthetic = SyntheticSet(jnp.ones((2, 2, 2, 1)), jnp.eye(2), jnp.array(0.1))
      >>> carry = small.begin(network.init(jax.random.key(0))["params"])
      >>> carry = small.train(carry, small.plan(jax.random.key(1), 2), synthetic)
      >>> small.params(carry)["head"]["kernel"].shape
      (4, 2)
    """
    require_whole("inner steps", steps, example=20)
    if batch_size is not None:
        require_whole("inner batch_size", batch_size, example=100)
    optimizer = optimizer or optax.identity()
    step = training_step(network, optimizer=optimizer, augmentation=augmentation)

    def plan(key: jax.Array, size: int) -> StepInput:
        order_key, draw_key = jax.random.split(key)
        rows = batch_plan(order_key, size, batch_size, steps)
        return StepInput(rows=rows, key=jax.random.split(draw_key, steps))

    return Student(
        network=network, steps=steps, begin=lambda params: start(params, optimizer),
        params=lambda carry: carry[0], plan=plan, step=step,
        train=lambda carry, inputs, synthetic: unroll(step, carry, inputs, synthetic,
                                                      adjoint=adjoint),
    )
