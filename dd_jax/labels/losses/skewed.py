"""Skewed divergences, whose second argument holds some of the first, and DistiLLM-2's pair.

    skew_kl          KL(p_t || a p_t + (1 - a) p_s)
    skew_reverse_kl  KL(p_s || (1 - a) p_t + a p_s)      the student in the mixture perhaps constant
    distillm2        (2 - b) skew_kl where the teacher made the input,
                     b skew_reverse_kl where the student did

Bounded by -log a, zero without slope where p_t = p_s, plain KL for a = 0. In vision what the
teacher made is a real or distilled image, and what the student made one that was changed against
it. The sequence that DistiLLM-2 averages over is one word long here, the image's class.

Source: Ko et al., DistiLLM: Towards Streamlined Distillation for Large Language Models, ICML 2024;
Ko et al., DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs, ICML 2025.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, below_one
from dd_jax.labels.losses.softened import divergence, log_mixture, log_softened
from dd_jax.labels.losses.targets import require_logits


class Contrast(NamedTuple):
    """What `distillm2` is told.

    Attributes:
      logits: [B, K], the teacher's.
      by_student: [B], 1 (or True) where the student made the input, 0 where the teacher did.
    """

    logits: jax.Array
    by_student: jax.Array


def skew_kl(
    logits: jax.Array, targets: jax.Array, *, skew: float = 0.1, temperature: float = 1.0
) -> jax.Array:
    """KL(p_t || a p_t + (1 - a) p_s).

    Args:
      logits: [B, K].
      targets: [B, K], the teacher's logits.
      skew: a, at least 0 and below 1.
      temperature: of both.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that are not equal.

    Example:
      >>> skew_kl(jnp.array([[99.0, 0.0]]), jnp.array([[0.0, 99.0]])).round(4).tolist()  # -log 0.1
      [2.3...]
    """
    require_logits(logits, targets)
    log_t, log_s = log_softened(targets, temperature), log_softened(logits, temperature)
    return divergence(log_t, log_mixture(log_t, log_s, skew))


def skew_reverse_kl(
    logits: jax.Array,
    targets: jax.Array,
    *,
    skew: float = 0.1,
    temperature: float = 1.0,
    flows: bool = False,
) -> jax.Array:
    """KL(p_s || (1 - a) p_t + a p_s); the rest as for `skew_kl`.

    Args:
      flows: whether the derivative goes through the student in the mixture, too, as in the first
        DistiLLM; DistiLLM-2 takes it as constant.

    Example:
      >>> skew_reverse_kl(jnp.array([[99.0, 0.0]]), jnp.array([[0.0, 99.0]])).round(4).tolist()
      [2.3...]
    """
    require_logits(logits, targets)
    log_t, log_s = log_softened(targets, temperature), log_softened(logits, temperature)
    held = log_s if flows else jax.lax.stop_gradient(log_s)
    return divergence(log_s, log_mixture(held, log_t, skew))


def distillm2(
    logits: jax.Array,
    targets: Contrast,
    *,
    balance: float = 1.0,
    skew: float = 0.1,
    temperature: float = 1.0,
) -> jax.Array:
    """(2 - b) skew_kl of rows that the teacher made, b skew_reverse_kl of those of the student.

    Args:
      logits: [B, K].
      targets: a `Contrast`.
      balance: b; see `growing_balance`.
      skew, temperature: as for `skew_kl`.

    Returns:
      [B].

    Raises:
      ConfigError: as `skew_kl`.

    Example:
      >>> told = Contrast(jnp.zeros((2, 2)), jnp.array([0, 1]))
      >>> distillm2(jnp.zeros((2, 2)), told).tolist()
      [0.0, 0.0]
    """
    options = dict(skew=skew, temperature=temperature)
    forward = skew_kl(logits, targets.logits, **options)
    reverse = skew_reverse_kl(logits, targets.logits, **options)
    return jnp.where(targets.by_student.astype(bool), balance * reverse, (2 - balance) * forward)


def growing_balance(progress: jax.Array | float) -> jax.Array:
    """b = 1 + 0.5 min(1, 2 progress), the gradual form; progress is the share of steps done.

    Example:
      >>> growing_balance(0.25).tolist()
      1.25
    """
    return 1 + 0.5 * jnp.minimum(1.0, 2.0 * jnp.asarray(progress))


def adaptive_skew(
    teacher: jax.Array, student: jax.Array, *, reference: float, skew: float = 0.1
) -> jax.Array:
    """a = clip(1 - (1 - a_0) r / (g + 1e-5), 0.01, a_0), g = p_t - p_s of what was made.

    Off by default in the official code.

    Args:
      teacher, student: [B], log-probabilities that either gives to the input's class, the mean
        over its words where there are several.
      reference: r, the gap at which a is a_0.
      skew: a_0.

    Returns:
      [B].

    Example:
      >>> ours, theirs = jnp.log(jnp.array([0.5])), jnp.log(jnp.array([0.9]))
      >>> bool(jnp.allclose(adaptive_skew(theirs, ours, reference=0.1), 0.1))  # the most
      True
    """
    gap = jnp.exp(teacher) - jnp.exp(student)
    return jnp.clip(1 - (1 - skew) * reference / (gap + 1e-5), 0.01, skew)


_DISTILLM = "Ko et al., DistiLLM: Towards Streamlined Distillation for Large Language Models, 2024"
ENTRIES = MappingProxyType({
    "skew_kl": Entry(skew_kl, "logits", options={"skew": 0.1, "temperature": 1.0},
                     source=_DISTILLM, checks={"skew": below_one}),
    "skew_reverse_kl": Entry(
        skew_reverse_kl, "logits", options={"skew": 0.1, "temperature": 1.0, "flows": False},
        source=_DISTILLM, checks={"skew": below_one}),
    "distillm2": Entry(
        distillm2, "Contrast", options={"balance": 1.0, "skew": 0.1, "temperature": 1.0},
        source="Ko et al., DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs",
        checks={"skew": below_one}),
})
