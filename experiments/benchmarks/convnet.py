"""ConvNet-3 forward and backward on 256 images: matrix-product convolutions against native ones.

    python -m experiments.benchmarks.convnet [width]
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp

from dd_jax import nets
from dd_jax.cli.allocator import keep_memory
from dd_jax.types import DataSpec
from experiments.benchmarks.timing import compiled, in_turns, report

SPEC = DataSpec("fashion_mnist", (28, 28, 1), 10, tuple("0123456789"))


def gradient(network, chunk):
    """Mean cross-entropy gradient in the parameters, accumulated over chunks of the batch."""

    def of_chunk(params, images, labels):
        logits = network.apply({"params": params}, images).logits
        return -jnp.sum(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]) / 256

    def fn(params, images, labels):
        if chunk is None:
            return jax.grad(of_chunk)(params, images, labels)
        parts = (images.reshape(-1, chunk, *images.shape[1:]), labels.reshape(-1, chunk))

        def add(total, part):
            return jax.tree.map(jnp.add, total, jax.grad(of_chunk)(params, *part)), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)[0]

    return fn


def main() -> None:
    kept = keep_memory()
    width = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    images = jax.random.normal(jax.random.key(0), (256, 28, 28, 1))
    labels = jnp.arange(256) % 10
    calls, compile_seconds = {}, {}
    for name, formulation, chunk in (("native", "native", None), ("ours", "auto", 16),
                                     ("ours, one chunk", "auto", None)):
        network = nets.convnet(SPEC, width=width, formulation=formulation)
        params = network.init(jax.random.key(1))["params"]
        fn, compile_seconds[name] = compiled(gradient(network, chunk), params, images, labels)
        calls[name] = lambda fn=fn, params=params: fn(params, images, labels)
    report(f"convnet_width{width}_batch256", in_turns(calls), compile_seconds=compile_seconds,
           baseline="native", allocator_keeps_memory=kept)


if __name__ == "__main__":
    main()
