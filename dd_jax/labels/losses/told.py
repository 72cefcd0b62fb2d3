"""What losses beyond logits are told by a teacher, as plain records of arrays, and their checks."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import jax

from dd_jax.errors import ConfigError


class Told(NamedTuple):
    """What a teacher makes of the views of a batch, see `labels.teacher_outputs`.

    Attributes:
      labels: [B, K] of the set, mixed as the images are.
      logits: [B, K] of the teacher.
      features: [B, P_t] of the teacher.
      taps: of the teacher, see `Outputs`.
      means: [B, P_t] mean features of each image's own class over a real set, or None.
    """

    labels: jax.Array
    logits: jax.Array
    features: jax.Array
    taps: tuple[jax.Array, ...] = ()
    means: Optional[jax.Array] = None


class Ensemble(NamedTuple):
    """What several teachers say of a batch, see `labels.ensemble_outputs`.

    Attributes:
      probabilities: [B, K], the mean of their probabilities.
      logits: [B, K], the mean of their logits.
    """

    probabilities: jax.Array
    logits: jax.Array


class Weighted(NamedTuple):
    """Targets, and by what factor each image's loss counts.

    Attributes:
      logits: [B, K] of the teacher.
      weights: [B], of mean 1 over the set.
    """

    logits: jax.Array
    weights: jax.Array


def require_same_shape(what: str, student: jax.Array, teacher: jax.Array, *, fix: str) -> None:
    """Refuses a student's array and a teacher's that differ in shape.

    Raises:
      ConfigError: as said.

    Example:
      >>> require_same_shape("features", jax.numpy.ones((1, 2)), jax.numpy.ones((1, 3)), fix="")
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: features are [1, 2] of the student and [1, 3] of the teacher
    """
    ours, theirs = (list(jax.numpy.shape(x)) for x in (student, teacher))
    if ours != theirs:
        raise ConfigError(f"{what} are {ours} of the student and {theirs} of the teacher", fix=fix)


def extra_of(outputs: Any, *, of: str) -> Any:
    """What `nets.extended` put beside the student's outputs.

    Args:
      outputs: of the network.
      of: the maker in `nets.extras` that the loss needs.

    Raises:
      ConfigError: outputs of a network that is not extended.

    Example:
      >>> from dd_jax.types import Outputs
      >>> extra_of(Outputs(None, None), of="second_head")
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: the network has nothing beside it, and this loss needs it; ...
    """
    if not hasattr(outputs, "extra"):
        raise ConfigError(f"the network has nothing beside it, and this loss needs {of}",
                          fix=f"pass nets.extended.extended(network, nets.extras.{of}(...))")
    return outputs.extra


def means_of(told: Told) -> jax.Array:
    """The classes' mean features of a batch.

    Raises:
      ConfigError: there are none.

    Example:
      >>> means_of(Told(None, None, None, means=jax.numpy.ones((1, 2)))).tolist()
      [[1.0, 1.0]]
    """
    if told.means is None:
        raise ConfigError("the targets have no mean features of classes, and this loss needs them",
                          fix="pass teacher_outputs(..., means=class_means(...))")
    return told.means
