"""Adapters that turn a module of some neural-network library into a `Network` record."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax.types import Network, Outputs, PyTree


def from_linen(module: nn.Module, shape: tuple[int, int, int], *, name: str) -> Network:
    """Wraps a Flax Linen module as a `Network`.

    The module is called as `module(images, train)` and returns (logits, features, taps).

    Args:
      module: a hashable Linen module.
      shape: (H, W, C) of one image.
      name: for tables and files.

    Returns:
      A `Network` whose variables are {"params": ...} and, with running statistics,
      {"params": ..., "batch_stats": ...}.

    Example:
      >>> import jax
      >>> from dd_jax.nets.mlp import MLP
      >>> network = from_linen(MLP(widths=(4,), num_classes=2), (3, 3, 1), name="mlp")
      >>> network.apply(network.init(jax.random.key(0)), jax.numpy.ones((5, 3, 3, 1))).logits.shape
      (5, 2)
    """

    def init(key: jax.Array) -> PyTree:
        return dict(module.init(key, jnp.zeros((1, *shape)), False))

    def apply(variables: PyTree, images: jax.Array, train: bool = False) -> Outputs:
        if train and "batch_stats" in variables:
            (logits, features, taps), updated = module.apply(
                variables, images, True, mutable=["batch_stats"]
            )
            return Outputs(logits, features, taps, updated["batch_stats"])
        logits, features, taps = module.apply(variables, images, train)
        return Outputs(logits, features, taps, variables.get("batch_stats", {}))

    def norm_inputs(variables: PyTree, images: jax.Array, train: bool = False):
        found = []

        def look(call, args, kwargs, context):
            if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
                axes = tuple(range(args[0].ndim - 1))
                found.append((jnp.mean(args[0], axes), jnp.var(args[0], axes)))
            return call(*args, **kwargs)

        with nn.intercept_methods(look):
            outputs = apply(variables, images, train)
        return outputs, tuple(found)

    return Network(init=init, apply=apply, name=name, norm_inputs=norm_inputs)


def with_batch_stats(variables: PyTree, outputs: Outputs) -> PyTree:
    """Puts the running statistics that a training pass returned back into the variables."""
    if "batch_stats" not in variables:
        return variables
    return {**variables, "batch_stats": outputs.batch_stats}
