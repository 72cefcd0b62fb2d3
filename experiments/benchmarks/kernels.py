"""Analytic kernels against neural_tangents, and a ridge step against the textbook formula.

`neural_tangents` computes each kernel as its users do: `stax.serial(...)`'s kernel_fn, jitted.
"gradient" is the derivative in the first images of KIP's loss, with both kernel blocks. The
textbook forms K_ss = F_s F_s^T and K_ts = F_t F_s^T, solves in float64 and lets JAX differentiate;
ours never forms K_ts and reuses the factor in the derivative.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from dd_jax import kernels
from dd_jax.data import gather, normalise, normalisers, rows_per_class
from dd_jax.kernels.neural_tangents import import_neural_tangents
from dd_jax.objectives import kernel_ridge
from dd_jax.solvers import fit_features
from dd_jax.types import Batch, Kernel, SyntheticSet
from experiments.benchmarks.parts import embedded
from experiments.benchmarks.timing import Options, Rival, race

# name -> (images of the set, real images)
SIZES = {"fc3": (100, 5000), "fc3 gradient": (100, 5000), "conv3": (10, 100),
         "conv3 gradient": (10, 100), "convnet3": (10, 10), "convnet3 gradient": (10, 10),
         "convnet3_gap": (10, 10)}
FEATURES, REAL, CLASSES = 2048, 1024, 10


def peer(name: str) -> Kernel:
    """The same architecture written for neural_tangents."""
    stax = import_neural_tangents().stax
    dense = stax.Dense(1, 2**0.5, 0.1)

    def conv():
        return [stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5, b_std=0.1), stax.Relu()]

    pool = [stax.AvgPool((2, 2), strides=(2, 2), padding="VALID")]
    layers = {
        "fc3": [stax.Flatten(), *3 * [dense, stax.Relu()], dense],
        "conv3": [*3 * conv(), stax.Flatten(), dense],
        "convnet3": [*3 * (conv() + pool), stax.Flatten(), dense],
        "convnet3_gap": [*3 * (conv() + pool), stax.GlobalAvgPool(), dense],
    }[name]
    return kernels.from_neural_tangents(stax.serial(*layers)[2])


def kernel(case: str, options: Options) -> None:
    """One kernel, or the gradient through it."""
    data, (name, *gradient) = embedded(), case.split()
    normaliser = normalisers("standardise", data)

    def images(count: int, seed: int):
        rows = rows_per_class(data, jax.random.key(seed), count // 10).reshape(-1)
        pixels, labels = gather(data, rows)
        return normalise(normaliser, pixels), labels

    few, many = SIZES[case]
    (x_s, y_s), (x_t, y_t) = images(few, 0), images(many, 1)
    soft, rivals = jax.nn.one_hot(y_s, 10) - 0.1, {}
    for rival, of in (("neural_tangents", peer(name)), ("ours", kernels.named(name))):
        objective = kernel_ridge(of, batch_size=many)

        def loss(x, y, real, objective=objective):
            return objective.loss(SyntheticSet(x, y), (), real, None)[0]

        rivals[rival] = Rival(of.pair, (x_s, x_t))
        if gradient:
            rivals[rival] = Rival(jax.grad(loss), (x_s, soft, Batch(x_t, y_t)))
    race(f"kernel_{case.replace(' ', '_')}_{few}x{many}", rivals, options,
         derived=lambda medians: _difference(rivals, medians))


def textbook(*args):
    """Value and gradient of a ridge step, all in float64."""

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
    """The same by the library."""
    predictions = jnp.matmul(f_t, fit_features(f_s, y_s).weights, precision="highest")
    return 0.5 * jnp.mean((predictions - y_t) ** 2)


def ridge(options: Options) -> None:
    """A ridge step on 10, 100 and 1,000 images' features."""
    for n in (10, 100, 1000):
        shapes = ((n, FEATURES), (n, CLASSES), (REAL, FEATURES), (REAL, CLASSES))
        keys = jax.random.split(jax.random.key(n), 4)
        args = tuple(jax.random.normal(key, shape) for key, shape in zip(keys, shapes))
        rivals = {"textbook": Rival(textbook, args), "ours": Rival(ours, args)}
        race(f"ridge_step_{n}", rivals, options,
             derived=lambda medians, r=rivals: _difference(r, medians, lambda found: found[1][0]))


def _difference(rivals, asked, pick=lambda found: found) -> dict[str, float]:
    """How far apart the rivals' values are, or a part of these, where both were asked for."""
    if len(asked) < 2:
        return {}
    theirs, own = (pick(jax.jit(r.fn)(*r.args)) for r in rivals.values())
    error = jnp.max(jnp.abs(own - theirs)) / jnp.max(jnp.abs(theirs))
    return {"largest_difference_over_largest_value": float(error)}
