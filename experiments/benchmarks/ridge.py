"""A ridge step, value and gradient, against the textbook formula in the same precision, in turns.

    python -m experiments.benchmarks.ridge

The textbook forms K_ss = F_s F_s^T and K_ts = F_t F_s^T, solves in float64 and lets JAX
differentiate; ours never forms K_ts and reuses the factor in the derivative.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from dd_jax.solvers import fit_features
from experiments.benchmarks.timing import compiled, in_turns, report

FEATURES, REAL, CLASSES = 2048, 1024, 10


def textbook(*args):
    """Value and gradient, all in float64."""

    def loss(f_s, y_s, f_t, y_t):
        k_ss, k_ts = f_s @ f_s.T, f_t @ f_s.T
        mu = 1e-6 * jnp.trace(k_ss) / len(k_ss)
        alpha = jax.scipy.linalg.solve(k_ss + mu * jnp.eye(len(k_ss)), y_s, assume_a="pos")
        return 0.5 * jnp.mean((k_ts @ alpha - y_t) ** 2)

    with jax.enable_x64(True):
        wide = [x.astype(jnp.float64) for x in args]
        found = jax.value_and_grad(loss, argnums=(0, 1))(*wide)
        return jax.tree.map(lambda x: x.astype(jnp.float32), found)


@partial(jax.value_and_grad, argnums=(0, 1))
def ours(f_s, y_s, f_t, y_t):
    """Value and gradient."""
    predictions = jnp.matmul(f_t, fit_features(f_s, y_s).weights, precision="highest")
    return 0.5 * jnp.mean((predictions - y_t) ** 2)


def main() -> None:
    for n in (10, 100, 1000):
        keys = jax.random.split(jax.random.key(n), 4)
        args = (jax.random.normal(keys[0], (n, FEATURES)), jax.random.normal(keys[1], (n, CLASSES)),
                jax.random.normal(keys[2], (REAL, FEATURES)),
                jax.random.normal(keys[3], (REAL, CLASSES)))
        calls, compile_seconds, values = {}, {}, {}
        for name, step in (("textbook", textbook), ("ours", ours)):
            fn, compile_seconds[name] = compiled(step, *args)
            calls[name] = lambda fn=fn, args=args: fn(*args)
            values[name] = fn(*args)[1][0]
        error = jnp.max(jnp.abs(values["ours"] - values["textbook"]))
        report(f"ridge_step_{n}", in_turns(calls), compile_seconds=compile_seconds,
               baseline="textbook",
               largest_difference_over_largest_value=float(
                   error / jnp.max(jnp.abs(values["textbook"]))))


if __name__ == "__main__":
    main()
