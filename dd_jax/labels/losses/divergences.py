"""Divergences of the student's softened distribution from the teacher's.

With p_t = softmax(z_t / T), p_s = softmax(z_s / T) and m = a p_t + (1 - a) p_s:

    kl          KL(p_t || p_s)
    reverse_kl  KL(p_s || p_t)
    js          a KL(p_t || m) + (1 - a) KL(p_s || m)
    tvd         0.5 sum_k |p_t - p_s|

each times T^2 where `rescale` says so. Unchanged when a number is added to a row of logits; zero,
without slope, where the distributions are equal. T^2 KL, either way, goes to half the mean squared
distance of centred logits for T -> infinity; T^2 times the others does in the same way, but for
tvd, whose distances are not squared.

Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015 (kl); Gu et al., MiniLLM,
ICLR 2024 (reverse_kl); Agarwal et al., On-Policy Distillation of Language Models, ICLR 2024 (js);
Wen et al., f-Divergence Minimization for Sequence-Level Knowledge Distillation, ACL 2023 (tvd).
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, probability
from dd_jax.labels.losses.softened import divergence, log_mixture, log_softened, squared
from dd_jax.labels.losses.targets import require_logits


def kl(
    logits: jax.Array, targets: jax.Array, *, temperature: float = 4.0, rescale: bool = True
) -> jax.Array:
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)).

    Args:
      logits: [B, K].
      targets: [B, K], the teacher's logits.
      temperature: T, above 0.
      rescale: whether T^2 is there; the slope is T (p_s - p_t) with it and (p_s - p_t) / T without.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that are not equal.

    Example:
      >>> kl(jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 2.0]])).round(6).tolist()
      [0.0]
    """
    log_t, log_s = _both(logits, targets, temperature)
    return squared(temperature, rescale) * divergence(log_t, log_s)


def reverse_kl(
    logits: jax.Array, targets: jax.Array, *, temperature: float = 1.0, rescale: bool = True
) -> jax.Array:
    """T^2 KL(softmax(z_s / T) || softmax(z_t / T)); the rest as for `kl`.

    Example:
      >>> reverse_kl(jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 2.0]])).round(6).tolist()
      [0.0]
    """
    log_t, log_s = _both(logits, targets, temperature)
    return squared(temperature, rescale) * divergence(log_s, log_t)


def js(
    logits: jax.Array,
    targets: jax.Array,
    *,
    share: float = 0.1,
    temperature: float = 1.0,
    rescale: bool = True,
) -> jax.Array:
    """T^2 (a KL(p_t || m) + (1 - a) KL(p_s || m)), m = a p_t + (1 - a) p_s; the rest as for `kl`.

    Args:
      share: a, between 0 and 1; 0 at either end.

    Example:
      >>> js(jnp.array([[9.0, 0.0]]), jnp.array([[0.0, 9.0]]), share=0.5).round(4).tolist()
      [0.69...]
    """
    log_t, log_s = _both(logits, targets, temperature)
    log_m = log_mixture(log_t, log_s, share)
    apart = share * divergence(log_t, log_m) + (1 - share) * divergence(log_s, log_m)
    return squared(temperature, rescale) * apart


def tvd(
    logits: jax.Array, targets: jax.Array, *, temperature: float = 1.0, rescale: bool = True
) -> jax.Array:
    """T^2 0.5 sum_k |p_t - p_s|, the total variation distance; the rest as for `kl`.

    Its slope jumps where a probability is the teacher's, and is taken as 0 there.

    Example:
      >>> tvd(jnp.array([[99.0, 0.0]]), jnp.array([[0.0, 99.0]])).tolist()
      [1.0]
    """
    log_t, log_s = _both(logits, targets, temperature)
    apart = jnp.sum(jnp.abs(jnp.exp(log_t) - jnp.exp(log_s)), axis=-1)
    return squared(temperature, rescale) * 0.5 * apart


def _both(logits, targets, temperature) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of the teacher and of the student."""
    require_logits(logits, targets)
    return log_softened(targets, temperature), log_softened(logits, temperature)


ENTRIES = MappingProxyType({
    "kl": Entry(kl, "logits", options={"temperature": 4.0, "rescale": True},
                source="Hinton et al., Distilling the Knowledge in a Neural Network, 2015"),
    "reverse_kl": Entry(reverse_kl, "logits", options={"temperature": 1.0, "rescale": True},
                        source="Gu et al., MiniLLM, ICLR 2024"),
    "js": Entry(js, "logits", options={"share": 0.1, "temperature": 1.0, "rescale": True},
                source="Agarwal et al., On-Policy Distillation of Language Models, ICLR 2024",
                checks={"share": probability}),
    "tvd": Entry(tvd, "logits", options={"temperature": 1.0, "rescale": True},
                 source="Wen et al., f-Divergence Minimization for Sequence-Level Knowledge "
                        "Distillation, ACL 2023"),
})
