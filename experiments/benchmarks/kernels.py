"""Analytic kernels against neural_tangents in one process, in turns, on Fashion-MNIST images.

    python -m experiments.benchmarks.kernels [rounds] [name ...]

`neural_tangents` computes each kernel as its users do: `stax.serial(...)`'s kernel_fn, jitted.
"gradient" is the derivative in the first images of KIP's loss, with both kernel blocks.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp

import dd_jax as dd
from dd_jax import kernels
from dd_jax.data import gather, normalise, normalisers, rows_per_class
from dd_jax.kernels.neural_tangents import import_neural_tangents
from dd_jax.objectives import kernel_ridge
from dd_jax.types import Batch, Kernel, SyntheticSet
from experiments.benchmarks.timing import compiled, in_turns, report

# name -> (images of the set, real images, with gradient)
CASES = {
    "fc3": (100, 5000, False),
    "fc3 gradient": (100, 5000, True),
    "conv3": (10, 100, False),
    "conv3 gradient": (10, 100, True),
    "convnet3": (10, 10, False),
    "convnet3 gradient": (10, 10, True),
    "convnet3_gap": (10, 10, False),
}


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


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    data = dd.data.load("embedded").train
    normaliser = normalisers("standardise", data)

    def images(count: int, seed: int):
        rows = rows_per_class(data, jax.random.key(seed), count // 10).reshape(-1)
        pixels, labels = gather(data, rows)
        return normalise(normaliser, pixels), labels

    for case in sys.argv[2:] or CASES:
        few, many, gradient = CASES[case]
        (x_s, y_s), (x_t, y_t) = images(few, 0), images(many, 1)
        soft = jax.nn.one_hot(y_s, 10) - 0.1
        calls, compile_seconds, values = {}, {}, {}
        name = case.split()[0]
        for rival, kernel in (("neural_tangents", peer(name)), ("ours", kernels.named(name))):
            objective = kernel_ridge(kernel, batch_size=many)

            def loss(x, y, real, objective=objective):
                return objective.loss(SyntheticSet(x, y), (), real, None)[0]

            fn, args = kernel.pair, (x_s, x_t)
            if gradient:
                fn, args = jax.grad(loss), (x_s, soft, Batch(x_t, y_t))
            fn, compile_seconds[rival] = compiled(fn, *args)
            calls[rival] = lambda fn=fn, args=args: fn(*args)
            values[rival] = fn(*args)
        error = jnp.max(jnp.abs(values["ours"] - values["neural_tangents"]))
        scale = jnp.max(jnp.abs(values["neural_tangents"]))
        report(f"kernel_{case.replace(' ', '_')}_{few}x{many}", in_turns(calls, rounds=rounds),
               compile_seconds=compile_seconds, baseline="neural_tangents",
               largest_difference_over_largest_value=float(error / scale))


if __name__ == "__main__":
    main()
