"""Working memory of a distribution matching step against the real batch and the synthetic set.

    python -m experiments.benchmarks.distribution_memory [--width 32]

The figures are the compiler's own: temporary bytes of the compiled loss and its gradient in the
synthetic images, nothing is run.
"""

from __future__ import annotations

import argparse
import json

import jax
import jax.numpy as jnp

from dd_jax import nets, objectives, pools
from dd_jax.report.result import device_name, git_commit
from dd_jax.types import Batch, DataSpec, SyntheticSet
from dd_jax.versions import versions
from experiments.benchmarks.kernel_memory import temporary_bytes
from experiments.benchmarks.timing import RESULTS

SHAPE, CLASSES = (28, 28, 1), 10
DISCREPANCIES = {
    "mean_features": objectives.mean_features,
    "attention": objectives.attention,
    "kernel_means": objectives.kernel_means,
    "characteristic_function": lambda: objectives.characteristic_function(
        objectives.normal_frequencies(1024)),
}


def matching_bytes(discrepancy, real: int, ipc: int, *, width: int) -> int:
    """Temporary bytes with `real` and `ipc` images per class."""
    spec = DataSpec("synthetic", SHAPE, CLASSES, tuple(map(str, range(CLASSES))))
    network = nets.convnet(spec, width=width)
    objective = objectives.distribution_matching(network, pools.fresh_pool(network), discrepancy,
                                                 batch_size=real)

    def loss(images, labels, state, batch, key):
        return objective.loss(SyntheticSet(images, labels), state, batch, key)[0]

    def floats(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    images, labels = floats(CLASSES * ipc, *SHAPE), floats(CLASSES * ipc, CLASSES)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(objective.init, key, SyntheticSet(images, labels))
    batch = Batch(floats(CLASSES, real, *SHAPE),
                  jax.ShapeDtypeStruct((CLASSES, real), jnp.int32))
    return temporary_bytes(jax.value_and_grad(loss), images, labels, state, batch, key)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=32)
    width = parser.parse_args().width
    rows = []
    for name, make in DISCREPANCIES.items():
        for real, ipc in ((64, 1), (256, 1), (1024, 1), (64, 10), (64, 50)):
            used = matching_bytes(make(), real, ipc, width=width)
            rows.append({"discrepancy": name, "real_per_class": real, "ipc": ipc, "bytes": used})
            print(f"{name:24} {real:5} real {ipc:3} synthetic per class {used / 1e6:9.1f} MB",
                  flush=True)
    record = {"benchmark": "distribution_memory", "width": width, "rows": rows,
              "device": device_name(), "versions": versions(), "git_commit": git_commit()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"distribution_memory_{device_name().split()[0].lower()}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
