"""Peak working memory of a KIP gradient and of a label solve against the number of real images.

    python -m experiments.benchmarks.kernel_memory

The figures are the compiler's own: temporary bytes of the compiled program, nothing is run. What is
left to grow by blocks is the kernel matrix itself and a copy of the images.
"""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp

from dd_jax import kernels
from dd_jax.objectives import kernel_ridge
from dd_jax.report.result import device_name, git_commit
from dd_jax.types import Batch, SyntheticSet
from dd_jax.versions import versions
from experiments.benchmarks.timing import RESULTS

BUDGET = 2**22  # bytes of one block: small, so that the blocks are many


def temporary_bytes(fn, *args) -> int:
    """Working memory of the compiled program, arguments and results apart."""
    return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes


def main() -> None:
    rows = []
    for name in ("fc3", "convnet3"):
        plain = kernels.named(name)
        blocks = kernels.blockwise(plain, budget_bytes=BUDGET)
        for how, kernel in (("blockwise", blocks), ("at once", plain)):
            for real in (1000, 5000, 20000):
                objective = kernel_ridge(kernel, batch_size=real)

                def loss(x, y, images, labels, objective=objective):
                    batch = Batch(images, labels)
                    return objective.loss(SyntheticSet(x, y), (), batch, None)[0]

                floats = [(100, 28, 28, 1), (100, 10), (real, 28, 28, 1)]
                args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in floats]
                used = temporary_bytes(jax.grad(loss), *args,
                                       jax.ShapeDtypeStruct((real,), jnp.int32))
                rows.append({"kernel": name, "how": how, "real_images": real, "bytes": used})
                print(f"{name:10} {how:10} {real:6} real images  {used / 1e6:9.1f} MB", flush=True)
    record = {"benchmark": "kernel_memory", "set_images": 100, "rows": rows,
              "device": device_name(), "versions": versions(), "git_commit": git_commit()}
    path = RESULTS / f"kernel_memory_{device_name().split()[0].lower()}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
