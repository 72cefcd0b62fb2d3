"""Working memory of a distribution matching step against the real batch and the synthetic set.

    python -m experiments.benchmarks.distribution_memory [--width 32]
"""

from __future__ import annotations

import argparse

from dd_jax import nets, objectives, pools
from experiments.benchmarks.memory import grey_spec, objective_bytes
from experiments.benchmarks.timing import write

DISCREPANCIES = {
    "mean_features": objectives.mean_features,
    "attention": objectives.attention,
    "kernel_means": objectives.kernel_means,
    "characteristic_function": lambda: objectives.characteristic_function(
        objectives.normal_frequencies(1024)),
}


def matching_bytes(discrepancy, real: int, ipc: int, *, width: int) -> int:
    """Temporary bytes with `real` and `ipc` images per class."""
    spec = grey_spec(10)
    network = nets.convnet(spec, width=width)
    objective = objectives.distribution_matching(network, pools.fresh_pool(network), discrepancy,
                                                 batch_size=real)
    return objective_bytes(objective, spec, real=real, ipc=ipc)


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
    write("distribution_memory", {"width": width, "rows": rows})


if __name__ == "__main__":
    main()
