"""A source of soft labels whose unreliable ones are replaced, or left out, by a rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_kind
from dd_jax.labels.supervision import Supervision, Views
from dd_jax.types import PyTree

Rule = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def calibrated(source: Supervision, rule: Rule) -> Supervision:
    """The targets of a source after a rule of FerKD's kind.

    The rule is told the source's probabilities and the true classes, which are the largest of the
    set's labels after mixing. A view that does not count has a target of zeros: cross-entropy to
    it, and its gradient, is 0, while a mean over a batch still divides by all rows.

    Args:
      source: targets are probabilities [B, K].
      rule: (probabilities [B, K], classes [B] int32) -> (labels [B, K], whether each counts [B]);
        hashable, so that equal ones share a program.

    Returns:
      A `Supervision` of the source's loss and arrays.

    Raises:
      ConfigError: no `Supervision`, or a rule that is no function.

    Example:
      >>> from dd_jax.labels.supervision import own_labels
      >>> def sure(probabilities, classes):
      ...     return probabilities, probabilities.max(axis=-1) > 0.6
      >>> views = Views(None, jnp.array([[0.5, 0.5], [0.1, 0.9]]), None, None, None)
      >>> calibrated(own_labels(), sure).targets((), views).round(1).tolist()
      [[0.0, 0.0], [0.1..., 0.9...]]
    """
    require_kind("source", source, Supervision, expected="a Supervision",
                 fix="pass labels.teacher(network, variables), or replay.supervision")
    if not callable(rule):
        raise ConfigError(f"rule is {rule!r}, expected a function (probabilities, classes) -> "
                          "(labels, counts)", fix="pass a function such as FerKD's calibration")
    return Supervision(_Calibrated(source.targets, rule), source.loss, source.arrays)


@dataclasses.dataclass(frozen=True)
class _Calibrated:
    source: Callable[[PyTree, Views], jax.Array]
    rule: Rule

    def __call__(self, arrays: PyTree, views: Views) -> jax.Array:
        own = jnp.asarray(views.labels)
        classes = own if jnp.issubdtype(own.dtype, jnp.integer) else jnp.argmax(own, axis=-1)
        labels, counts = self.rule(self.source(arrays, views), classes.astype(jnp.int32))
        return jnp.where(counts[:, None], labels, 0.0)
