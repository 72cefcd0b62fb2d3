"""Sinkhorn distance of the student's rows of a batch from the teacher's.

With P = softmax(z_s / T) and Q = softmax(z_t / T), both [B, K], and n rounds of

    M_ij = sum_k |P_ik - Q_jk|,    log N = -M / epsilon,
    log N <- log N - logsumexp over j,    log N <- log N - logsumexp over i,

the loss of row i is sum_j N_ij M_ij: the mean over the batch is sum N M / B. The rounds leave the
columns at sum 1 and the rows nearly so.

The batch is compared as a whole, rows of weight 0 included: weights change the mean over rows, not
what they are compared with, so a batch that is filled up has to be avoided.

Zero where all rows of both are one distribution: elsewhere the entropic plan moves some mass also
between equal batches. Unchanged when a number is added to a row of logits.

Differs from the official code:
  - Sums are divided by B, so that the loss does not grow with the batch, and its factor (1e-3 in
    front of the sum over the batch) is left to whoever adds losses.
  - Logarithms: exp(-M / epsilon) goes down to 2e-9.
  - T is an option; the code has 2 whatever it is given.

Source: Cui et al., Sinkhorn Distance Minimization for Knowledge Distillation, LREC-COLING 2024.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, above_zero
from dd_jax.labels.losses.softened import log_softened
from dd_jax.labels.losses.targets import require_logits


def sinkhorn(
    logits: jax.Array,
    targets: jax.Array,
    *,
    temperature: float = 2.0,
    epsilon: float = 0.1,
    rounds: int = 20,
    unrolled: bool = True,
) -> jax.Array:
    """The cost of each student row in the plan between both batches, see the module.

    Args:
      logits: [B, K]; a whole batch.
      targets: [B, K], the teacher's logits.
      temperature: of both.
      epsilon: of the plan, above 0; M is at most 2.
      rounds: of both normalisations, static.
      unrolled: whether the derivative goes through the rounds; without, the plan is constant, which
        is cheaper.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that are not equal.

    Example:
      >>> logits = jnp.array([[9.0, 0.0], [0.0, 9.0]])
      >>> sinkhorn(logits, logits[::-1]).round(1).tolist()
      [0.0, 0.0]
    """
    require_logits(logits, targets)
    p = jnp.exp(log_softened(logits, temperature))
    q = jnp.exp(log_softened(targets, temperature))
    cost = jnp.sum(jnp.abs(p[:, None] - q), axis=-1)

    def normalised(log_plan, _):
        for axis in (1, 0):
            log_plan -= jax.nn.logsumexp(log_plan, axis=axis, keepdims=True)
        return log_plan, None

    plan = jnp.exp(jax.lax.scan(normalised, -cost / epsilon, length=rounds)[0])
    plan = plan if unrolled else jax.lax.stop_gradient(plan)
    return jnp.sum(plan * cost, axis=1)


ENTRIES = MappingProxyType({
    "sinkhorn": Entry(
        sinkhorn, "logits", whole=True,
        options={"temperature": 2.0, "epsilon": 0.1, "rounds": 20, "unrolled": True},
        source="Cui et al., Sinkhorn Distance Minimization for Knowledge Distillation, 2024",
        checks={"epsilon": above_zero("costs are divided by it", 0.1)}),
})
