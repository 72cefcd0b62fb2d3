"""Working memory of a gradient matching step against the number of classes.

    python -m experiments.benchmarks.gradient_memory [--width 32]

"map" goes class by class, "vmap" takes all at once; "plain jax" is the vmapped writing with native
convolutions and without chunks.
"""

from __future__ import annotations

import argparse

import optax

from dd_jax import nets, pools
from dd_jax.objectives import gradient_matching
from experiments.benchmarks.gradient_plain import plain_objective
from experiments.benchmarks.memory import grey_spec, objective_bytes
from experiments.benchmarks.timing import write

BATCH = 256


def matching_bytes(num_classes: int, ipc: int, *, classes: str, width: int) -> int:
    """Working memory of DC's loss and its gradient in the synthetic images."""
    spec = grey_spec(num_classes)
    network = nets.convnet(spec, width=width)
    pool = pools.inner_trained_pool(network, uses=1, epochs=1, optimizer=optax.sgd(0.01))
    plain = classes == "plain jax"
    objective = gradient_matching(network, pool, batch_size=BATCH,
                                  classes="vmap" if plain else classes)
    if plain:
        objective = plain_objective(objective,
                                    nets.convnet(spec, width=width, formulation="native"))
    return objective_bytes(objective, spec, real=BATCH, ipc=ipc)


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
    suffix = "" if width == 32 else f"_width{width}"
    write(f"gradient_memory{suffix}", {"width": width, "real_per_class": BATCH, "rows": rows})


if __name__ == "__main__":
    main()
