"""AugMix's consistency: three views of an image should get one distribution.

    JS(p_1, p_2, p_3) = mean_j KL(p_j || M),    M = (p_1 + p_2 + p_3) / 3
    loss = CE(y, p_1) + 12 JS(p_1, p_2, p_3)

A batch of 3 n rows holds n images as they are, then their second and their third views in the same
order. The loss is the mean over all rows of `augmix`: 12 JS of its image for each of its three
rows, and three times the cross-entropy more for its first.

The batch may not be cut, since views of an image stand apart. A weight is an image's and has to be
the same for its three rows: then the weighted mean is that of the images.

JS is zero, without slope, where the views agree; it is unchanged when a number is added to a row of
logits, and by an order of the views.

Differs from the official code: logarithms of mixtures are not cut off at 1e-7.

Source: Hendrycks et al., AugMix: A Simple Data Processing Method to Improve Robustness and
Uncertainty, ICLR 2020.
"""

from __future__ import annotations

import math
from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.labels.losses.plain import cross_entropy
from dd_jax.labels.losses.record import Entry, at_least_zero
from dd_jax.labels.losses.softened import divergence
from dd_jax.labels.losses.targets import require_logits

VIEWS = 3


def consistency(logits: jax.Array) -> jax.Array:
    """The Jensen-Shannon divergence of an image's views.

    Args:
      logits: [V, B, K], of V views.

    Returns:
      [B], between 0 and log V.

    Example:
      >>> consistency(jnp.array([[[99.0, 0.0]], [[0.0, 99.0]]])).round(4).tolist()  # log 2
      [0.69...]
    """
    log_p = jax.nn.log_softmax(logits)
    log_m = jax.nn.logsumexp(log_p, axis=0) - math.log(logits.shape[0])
    return jnp.mean(divergence(log_p, log_m), axis=0)


def augmix(logits: jax.Array, targets: jax.Array, *, weight: float = 12.0) -> jax.Array:
    """Cross-entropy of first views and the consistency of all, see the module.

    Args:
      logits: [3 n, K]; a whole batch, view after view.
      targets: [3 n, K] probabilities, of which the first n are used.
      weight: of the consistency, at least 0.

    Returns:
      [3 n].

    Raises:
      ConfigError: a number of rows that 3 does not divide, shapes that are not equal.

    Example:
      >>> augmix(jnp.zeros((3, 2)), jnp.eye(2)[jnp.zeros(3, int)]).mean().round(4).tolist()
      0.69...
    """
    require_logits(logits, targets)
    rows = logits.shape[0]
    if rows % VIEWS:
        raise ConfigError(f"a batch of {rows} rows cannot hold {VIEWS} views of each image",
                          fix="pass the images, then their second and their third views")
    views = logits.reshape(VIEWS, -1, logits.shape[1])
    told = cross_entropy(views[0], targets[: rows // VIEWS])
    apart = jnp.tile(weight * consistency(views), VIEWS)
    return apart.at[: rows // VIEWS].add(VIEWS * told)


ENTRIES = MappingProxyType({
    "augmix": Entry(augmix, "probabilities", whole=True, options={"weight": 12.0},
                    source="Hendrycks et al., AugMix, ICLR 2020",
                    checks={"weight": at_least_zero}),
})
