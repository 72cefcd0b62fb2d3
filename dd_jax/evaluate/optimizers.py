"""Optimisers and schedules of the learning rate by name, for protocols."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError
from dd_jax.evaluate.ranges import COUNTER
from dd_jax.transforms import pull_to_start, restarted_at


def _sgd(settings) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(settings.weight_decay),
                       optax.trace(decay=settings.momentum))


def _adam(settings) -> optax.GradientTransformation:
    return optax.scale_by_adam()


def _adamw(settings) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(settings.weight_decay))


# name -> (settings) -> the optimiser without its rate: gradients -> directions of unit rate.
OPTIMIZERS = MappingProxyType({"sgd": _sgd, "adam": _adam, "adamw": _adamw})


def drop_epoch(epochs: int) -> int:
    """First epoch after the drop of "step_drop" in a run of so many."""
    # The official loop runs E + 1 epochs, numbered from 0, and drops after epoch E // 2 + 1.
    return (epochs - 1) // 2 + 2


def _constant(settings, epochs: int, per_epoch: int) -> optax.Schedule:
    return optax.constant_schedule(settings.learning_rate)


def _step_drop(settings, epochs: int, per_epoch: int) -> optax.Schedule:
    return optax.piecewise_constant_schedule(settings.learning_rate,
                                             {drop_epoch(epochs) * per_epoch: 0.1})


def _milestones(settings, epochs: int, per_epoch: int) -> optax.Schedule:
    peak = settings.learning_rate
    return optax.join_schedules(
        [optax.constant_schedule(rate) for rate in (peak, 0.2 * peak, 0.04 * peak)],
        [2 * epochs // 3 * per_epoch, 5 * epochs // 6 * per_epoch])


def _fifths(settings, epochs: int, per_epoch: int) -> optax.Schedule:
    ends = [fifth * epochs // 5 * per_epoch for fifth in range(1, 5)]
    rates = [optax.constant_schedule(settings.learning_rate * 0.5**fifth) for fifth in range(5)]
    return optax.join_schedules(rates, ends)


def _warmup_cosine(settings, epochs: int, per_epoch: int) -> optax.Schedule:
    total, peak = epochs * per_epoch, settings.learning_rate
    warmup = min(settings.warmup, total // 2)
    return optax.warmup_cosine_decay_schedule(
        0.0, peak, warmup, max(total, warmup + 1), peak * settings.final_fraction)


# name -> (settings, epochs, steps of each) -> the rate as a function of the step.
SCHEDULES = MappingProxyType({
    "constant": _constant, "step_drop": _step_drop, "milestones": _milestones, "fifths": _fifths,
    "warmup_cosine": _warmup_cosine,
})


def directions(settings: Any) -> optax.GradientTransformation:
    """The optimiser without its learning rate: gradients -> descent directions of unit rate.

    Args:
      settings: an `OptimizerSettings`.
    """
    return OPTIMIZERS[settings.name](settings)


def check_steps(steps: int) -> None:
    """Refuses a training of more steps than a device can count.

    Raises:
      ConfigError: as said.
    """
    if steps > COUNTER:
        raise ConfigError(f"the protocol asks for {steps} steps, expected at most {COUNTER}",
                          fix="pass fewer epochs, or a larger batch_size")


def rate_schedule(settings: Any, epochs: int, per_epoch: int) -> optax.Schedule:
    """Learning rate as a function of the step, for `epochs` of `per_epoch` steps each.

    Args:
      settings: an `OptimizerSettings`.
      epochs, per_epoch: of the run.

    Raises:
      ConfigError: there are several rates, and not as many as steps; or more than can be counted.
    """
    rates, steps = settings.learning_rate, epochs * per_epoch
    check_steps(steps)
    if not isinstance(rates, tuple):
        return SCHEDULES[settings.schedule](settings, epochs, per_epoch)
    if len(rates) != steps:
        raise ConfigError(
            f"there are {len(rates)} learning rates for {epochs} epochs of {per_epoch} steps",
            fix=f"train for {len(rates)} steps, as the set was made for")
    return lambda step: jnp.asarray(rates)[step]


def optimizer_of(settings: Any, epochs: int, per_epoch: int) -> optax.GradientTransformation:
    """The whole optimiser: pull, clip, directions, restart and rate.

    Args:
      settings: an `OptimizerSettings`.
      epochs, per_epoch: of the run.

    Returns:
      An optax transformation of gradients into what is added to the parameters.
    """
    directed = directions(settings)
    if settings.schedule == "step_drop":
        directed = restarted_at(directed, drop_epoch(epochs) * per_epoch)
    clipped = optax.clip_by_global_norm(settings.clip) if settings.clip else optax.identity()
    return optax.chain(pull_to_start(settings.pull), clipped, directed,
                       optax.scale_by_learning_rate(rate_schedule(settings, epochs, per_epoch)))
