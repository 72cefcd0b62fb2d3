"""Peak working memory of a KIP gradient and of a label solve against the number of real images.

    python -m experiments.benchmarks.kernel_memory

What is left to grow by blocks is the kernel matrix itself and a copy of the images.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax import kernels
from dd_jax.objectives import kernel_ridge
from dd_jax.types import Batch, SyntheticSet
from experiments.benchmarks.memory import temporary_bytes
from experiments.benchmarks.timing import write

BUDGET = 2**22  # bytes of one block: small, so that the blocks are many


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
    write("kernel_memory", {"set_images": 100, "rows": rows})


if __name__ == "__main__":
    main()
