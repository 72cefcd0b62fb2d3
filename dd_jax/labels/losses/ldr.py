"""Label-distributionally robust losses: the worst mixture of competing classes, within reason.

With gaps d_k = z_k - z_y + m 1[k != y] and u the uniform distribution over K classes,

    ldr       max_p sum_k p_k d_k - lambda KL(p || u) = lambda log mean_k exp(d_k / lambda)
    adaptive  min_{lambda >= 0} of the same + (alpha / 2) (lambda - lambda_0)^2

The first is cross-entropy, less log K, for lambda = 1 and m = 0; the largest gap for lambda -> 0;
their mean for lambda -> infinity. In the second each image has its own lambda: with
p = softmax(d / lambda), lambda = lambda_0 + KL(p || u) / alpha, so that it lies between lambda_0
and lambda_0 + log K / alpha and halving the interval finds it. By the envelope theorem the
derivative in the logits is that at a constant lambda.

Unchanged when a number is added to a row of logits, and by an order of the other classes. Values
may be negative; zero where all gaps are.

The adaptive form and its constants (alpha = 2 log K, lambda_0 = 1, m = 0.1) are from memory.

Differs from the official code: lambda is found to rounding, instead of by a few steps.

Source: Zhu et al., Label Distributionally Robust Losses for Multi-class Classification:
Consistency, Robustness and Adaptivity, ICML 2023.
"""

from __future__ import annotations

import math
from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.errors import require_above_zero, require_at_least_zero
from dd_jax.labels.losses.record import Entry, above_zero, at_least_zero
from dd_jax.labels.losses.targets import require_classes

HALVINGS = 60  # the interval is below rounding then, also in float64


def ldr(
    logits: jax.Array, targets: jax.Array, *, temperature: float = 1.0, margin: float = 0.1
) -> jax.Array:
    """lambda log mean_k exp(d_k / lambda), see the module.

    Args:
      logits: [B, K].
      targets: [B], class numbers.
      temperature: lambda, above 0.
      margin: m, at least 0.

    Returns:
      [B].

    Raises:
      ConfigError: a number that cannot be, soft labels.

    Example:
      >>> abs(ldr(jnp.zeros((1, 3)), jnp.array([0]), margin=0.0).item()) < 1e-5
      True
    """
    require_above_zero("temperature", temperature, why="gaps are divided by it", example=1.0)
    return _softest(_gaps(logits, targets, margin), temperature)


def adaptive_ldr(
    logits: jax.Array,
    targets: jax.Array,
    *,
    temperature: float = 1.0,
    strength: float = 2.0,
    margin: float = 0.1,
) -> jax.Array:
    """The same with each image's own lambda, see the module.

    Args:
      logits: [B, K].
      targets: [B], class numbers.
      temperature: lambda_0, above 0.
      strength: alpha / log K, above 0; the paper's consistency needs lambda_0 alpha > log K.
      margin: m, at least 0.

    Returns:
      [B].

    Raises:
      ConfigError: a number that cannot be, soft labels.

    Example:
      >>> abs(adaptive_ldr(jnp.zeros((1, 3)), jnp.array([0]), margin=0.0).item()) < 1e-5
      True
    """
    require_above_zero("temperature", temperature, why="gaps are divided by it", example=1.0)
    require_above_zero("strength", strength, why="nothing would hold the temperature", example=2.0)
    gaps = _gaps(logits, targets, margin)
    alpha = strength * math.log(max(gaps.shape[-1], 2))
    own = jax.lax.stop_gradient(_own(jax.lax.stop_gradient(gaps), temperature, alpha))
    return _softest(gaps, own) + 0.5 * alpha * (own - temperature) ** 2


def _gaps(logits: jax.Array, targets: jax.Array, margin: float) -> jax.Array:
    """d, [B, K]."""
    require_classes(logits, targets)
    require_at_least_zero("margin", margin, example=0.1)
    true = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return logits - jnp.sum(true * logits, axis=-1, keepdims=True) + margin * (1 - true)


def _softest(gaps: jax.Array, temperature: float | jax.Array) -> jax.Array:
    over = jnp.broadcast_to(jnp.asarray(temperature, gaps.dtype), gaps.shape[:1])
    return over * (jax.nn.logsumexp(gaps / over[:, None], axis=-1) - math.log(gaps.shape[-1]))


def _own(gaps: jax.Array, least: float, alpha: float) -> jax.Array:
    """[B], where lambda = lambda_0 + KL(p || u) / alpha; left less right grows with lambda."""
    log_k = math.log(gaps.shape[-1])

    def halved(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        log_p = jax.nn.log_softmax(gaps / middle[:, None])
        far = least + (jnp.sum(jnp.exp(log_p) * log_p, axis=-1) + log_k) / alpha
        return jnp.where(far > middle, middle, low), jnp.where(far > middle, high, middle)

    low = jnp.full(gaps.shape[:1], least, gaps.dtype)
    low, high = jax.lax.fori_loop(0, HALVINGS, halved, (low, low + log_k / alpha))
    return 0.5 * (low + high)


_SOURCE = "Zhu et al., Label Distributionally Robust Losses for Multi-class Classification, 2023"
ENTRIES = MappingProxyType({
    "ldr": Entry(ldr, "classes", options={"temperature": 1.0, "margin": 0.1}, source=_SOURCE,
                 checks={"margin": at_least_zero}),
    "adaptive_ldr": Entry(
        adaptive_ldr, "classes", options={"temperature": 1.0, "strength": 2.0, "margin": 0.1},
        source=_SOURCE,
        checks={"margin": at_least_zero,
                "strength": above_zero("nothing would hold the temperature", 2.0)}),
})
