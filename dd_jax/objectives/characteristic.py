"""Characteristic functions of features: distributions compared by amplitude and phase.

  Phi_u(t) = mean_i exp(i <t, u_i>),   u_i = f(x_i) / |f(x_i)|

  NCFD = mean_k sqrt( alpha A(t_k) + beta B(t_k) )
  A = (|Phi_u| - |Phi_v|)^2                             difference of amplitudes
  B = 2 (|Phi_u| |Phi_v| - Re(Phi_u conj(Phi_v)))       difference of phases

Since A + B = |Phi_u - Phi_v|^2, the sum under the root is

  beta |Phi_u - Phi_v|^2 + (alpha - beta) A,

which is how it is computed: it does not cancel where the two are near, and for alpha = beta it has
no amplitude, whose derivative is infinite where Phi vanishes.

Source: Wang et al., Dataset Distillation with Neural Characteristic Function: A Minmax
Perspective, CVPR 2025.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_at_least_zero
from dd_jax.objectives.discrepancy import Discrepancy, Probe
from dd_jax.types import Outputs

_FLOOR = 1e-12  # of what is under a root, below which its derivative is 0 instead of very large


def characteristic_function(
    probe: Probe, *, alpha: float = 0.5, beta: float = 0.5
) -> Discrepancy:
    """NCFM's discrepancy of normalised features, see the module.

    Args:
      probe: draws the frequencies, [k, P].
      alpha, beta: weights of amplitude and phase.

    Returns:
      A `Discrepancy` that keeps [b, P], features of length 1 (or 0 where all are 0).

    Raises:
      ConfigError: a weight that is negative or not finite, or two weights of 0.

    Example:
      >>> from dd_jax.objectives.frequencies import normal_frequencies
      >>> compare = characteristic_function(normal_frequencies(8)).compare
      >>> u, t = jnp.eye(3), jnp.array([[jnp.pi, 0.0, 0.0]])
      >>> round(float(compare(u[:1], u[1:], t)), 4)  # exp(i pi) and 1 are 2 apart: sqrt(4 / 2)
      1.4142
    """
    require_at_least_zero("alpha", alpha, example=0.5)
    require_at_least_zero("beta", beta, example=0.5)
    if alpha == beta == 0:
        raise ConfigError("alpha and beta are 0: nothing is compared",
                          fix="pass alpha=0.5, beta=0.5")

    def compare(real: jax.Array, synthetic: jax.Array, frequencies: jax.Array) -> jax.Array:
        u, v = _empirical(real, frequencies), _empirical(synthetic, frequencies)
        squares = beta * jnp.sum((u - v) ** 2, axis=0)
        if alpha != beta:
            squares = squares + (alpha - beta) * (_amplitude(u) - _amplitude(v)) ** 2
        return jnp.mean(_root(squares))

    return Discrepancy(collect=_directions, compare=compare, probe=probe)


def _directions(outputs: Outputs) -> jax.Array:
    """Features of length 1; zeros stay zeros, with a finite derivative."""
    features = outputs.features
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    some = squares > _FLOOR**2
    return features * jax.lax.rsqrt(jnp.where(some, squares, 1.0))


def _empirical(features: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Real and imaginary part of the mean of exp(i <t, x>): [n, P], [k, P] -> [2, k]."""
    angles = features @ frequencies.T
    return jnp.stack([jnp.mean(jnp.cos(angles), axis=0), jnp.mean(jnp.sin(angles), axis=0)])


def _amplitude(phi: jax.Array) -> jax.Array:
    return _root(jnp.sum(phi**2, axis=0))


def _root(squares: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(squares, _FLOOR))
