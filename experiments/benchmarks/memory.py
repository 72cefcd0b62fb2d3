"""Working memory of compiled programs, by the compiler's own analysis: nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.types import Batch, DataSpec, Objective, SyntheticSet
from experiments.benchmarks.timing import RESULTS


def temporary_bytes(fn, *args) -> int:
    """Working memory of the compiled program, arguments and results apart."""
    return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes


def plot_memory(record: Mapping[str, Any], against: str, label: str) -> None:
    """Draws a record's "rows", a line for each adjoint, beside its JSON.

    Args:
      record: as `timing.write` returns it.
      against: the field of a row along the horizontal axis.
      label: of that axis.
    """
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5))
    for name in dict.fromkeys(row["adjoint"] for row in record["rows"]):
        mine = [row for row in record["rows"] if row["adjoint"] == name]
        axes.plot([r[against] for r in mine], [r["bytes"] / 1e6 for r in mine], "o-", label=name)
    axes.set(xlabel=label, ylabel="working memory / MB", xscale="log", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / f"{record['benchmark']}.png", dpi=120)


def grey_spec(num_classes: int) -> DataSpec:
    """28x28 grey images of so many classes."""
    return DataSpec("synthetic", (28, 28, 1), num_classes, tuple(map(str, range(num_classes))))


def objective_bytes(objective: Objective, spec: DataSpec, *, real: int, ipc: int) -> int:
    """Working memory of a class-wise objective's loss and its gradient in the synthetic images.

    Args:
      objective: whose batch is [K, real] images.
      spec: of the images.
      real, ipc: real and synthetic images per class.
    """

    def loss(images, labels, state, batch, key):
        return objective.loss(SyntheticSet(images, labels), state, batch, key)[0]

    def floats(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    classes = spec.num_classes
    images, labels = floats(classes * ipc, *spec.shape), floats(classes * ipc, classes)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(objective.init, key, SyntheticSet(images, labels))
    batch = Batch(floats(classes, real, *spec.shape),
                  jax.ShapeDtypeStruct((classes, real), jnp.int32))
    return temporary_bytes(jax.value_and_grad(loss), images, labels, state, batch, key)
