"""A network's training on the synthetic set, as inner loops run it: step, plan and derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError, require_whole
from dd_jax.train.built import require_built
from dd_jax.train.plans import Plan, permuted
from dd_jax.train.training_step import StepInput, start, training_step
from dd_jax.train.unroll import unroll
from dd_jax.types import Augmentation, Network, PyTree, SyntheticSet


class Student(NamedTuple):
    """An inner training loop of a fixed number of steps.

    Attributes:
      network: the architecture.
      steps: N.
      begin: (params) -> carry of the loop before its first step.
      params: (carry) -> params.
      plan: (key, size M) -> `StepInput` with the leading axis N: batch, key and position of every
        step.
      step: (carry, input, synthetic) -> carry.
      train: (carry, inputs, synthetic) -> carry after all inputs, with the loop's derivative.
      shared_draw: whether all images of all steps have one draw of the augmentation.
    """

    network: Network
    steps: int
    begin: Callable[[PyTree], PyTree]
    params: Callable[[PyTree], PyTree]
    plan: Callable[[jax.Array, int], StepInput]
    step: Callable[..., PyTree]
    train: Callable[[PyTree, StepInput, SyntheticSet], PyTree]
    shared_draw: bool = False


def student(
    network: Network,
    *,
    steps: int,
    batch_size: int | None = None,
    plan: Plan | None = None,
    optimizer: optax.GradientTransformation | None = None,
    augmentation: Augmentation | None = None,
    shared_draw: bool = False,
    adjoint: Callable[..., PyTree] | None = None,
) -> Student:
    """Training by cross-entropy at the set's own learning rate, differentiable in the set.

    Args:
      network: the architecture.
      steps: N.
      batch_size: synthetic images per step, of one random permutation after another; None for the
        whole set.
      plan: which images each step takes, instead of `batch_size`; see `train.plans`.
      optimizer: gradients -> directions of unit rate; None for plain SGD.
      augmentation: one draw per image in every step; images get their gradient through it.
      shared_draw: one draw for all images of all steps instead.
      adjoint: how the loop is differentiated, see `unroll`; by default with checkpoints.

    Returns:
      A `Student`.

    Raises:
      ConfigError: `steps` or `batch_size` below 1, or both a `batch_size` and a `plan`; an
        augmentation that is none, such as `augment.dsa` for `augment.dsa(shape)`.

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
    require_built("augmentation", augmentation, Augmentation, optional=True)
    if batch_size is not None and plan is not None:
        raise ConfigError(f"a student has batch_size={batch_size} and a plan",
                          fix="leave one of them out")
    rows_of = permuted(batch_size) if plan is None else plan
    optimizer = optimizer or optax.identity()
    step = training_step(network, optimizer=optimizer, augmentation=augmentation,
                         shared_draw=shared_draw)

    def inputs(key: jax.Array, size: int) -> StepInput:
        order_key, draw_key = jax.random.split(key)
        keys = jax.random.split(draw_key, steps)
        if shared_draw:
            keys = jnp.broadcast_to(draw_key, (steps,))
        return StepInput(rows=rows_of(order_key, size, steps), key=keys,
                         position=jnp.arange(steps))

    return Student(
        network=network, steps=steps, begin=lambda params: start(params, optimizer),
        params=lambda carry: carry[0], plan=inputs, step=step,
        train=lambda carry, inputs, synthetic: unroll(step, carry, inputs, synthetic,
                                                      adjoint=adjoint),
        shared_draw=shared_draw,
    )
