"""Working memory of a gradient matching step against the number of classes.

    python -m experiments.benchmarks.gradient_memory [--width 32]

The figures are the compiler's own: temporary bytes of the compiled loss and its gradient, nothing
is run. "map" goes class by class, "vmap" takes all at once; "plain jax" is the vmapped writing with
native convolutions and without chunks.
"""

from __future__ import annotations

import argparse
import json

import jax
import jax.numpy as jnp
import optax

from dd_jax import nets, pools
from dd_jax.objectives import gradient_matching
from dd_jax.report.result import device_name, git_commit
from dd_jax.types import Batch, DataSpec, SyntheticSet
from dd_jax.versions import versions
from experiments.benchmarks.gradient_plain import plain_objective
from experiments.benchmarks.kernel_memory import temporary_bytes
from experiments.benchmarks.timing import RESULTS

SHAPE, BATCH = (28, 28, 1), 256


def matching_bytes(num_classes: int, ipc: int, *, classes: str, width: int) -> int:
    """Working memory of DC's loss and its gradient in the synthetic images."""
    spec = DataSpec("synthetic", SHAPE, num_classes, tuple(map(str, range(num_classes))))
    network = nets.convnet(spec, width=width)
    pool = pools.inner_trained_pool(network, uses=1, epochs=1, optimizer=optax.sgd(0.01))
    plain = classes == "plain jax"
    objective = gradient_matching(network, pool, batch_size=BATCH,
                                  classes="vmap" if plain else classes)
    if plain:
        objective = plain_objective(objective,
                                    nets.convnet(spec, width=width, formulation="native"))

    def loss(images, labels, state, batch, key):
        return objective.loss(SyntheticSet(images, labels), state, batch, key)[0]

    def floats(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    images, labels = floats(num_classes * ipc, *SHAPE), floats(num_classes * ipc, num_classes)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(objective.init, key, SyntheticSet(images, labels))
    batch = Batch(floats(num_classes, BATCH, *SHAPE),
                  jax.ShapeDtypeStruct((num_classes, BATCH), jnp.int32))
    return temporary_bytes(jax.value_and_grad(loss), images, labels, state, batch, key)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=32)
    width = parser.parse_args().width
    rows = []
    for how in ("map", "vmap", "plain jax"):
        for ipc in (1, 10):
            for num_classes in (10, 100):
                used = matching_bytes(num_classes, ipc, classes=how, width=width)
                rows.append({"how": how, "ipc": ipc, "classes": num_classes, "bytes": used})
                print(f"{how:10} {ipc:3} per class {num_classes:4} classes  {used / 1e6:9.1f} MB",
                      flush=True)
    record = {"benchmark": "gradient_memory", "width": width, "real_per_class": BATCH, "rows": rows,
              "device": device_name(), "versions": versions(), "git_commit": git_commit()}
    suffix = "" if width == 32 else f"_width{width}"
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"gradient_memory{suffix}_{device_name().split()[0].lower()}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
