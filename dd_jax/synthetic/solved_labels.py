"""Labels in closed form: those of given images by which kernel regression fits the real set best.

Source: Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression, ICLR 2021.
"""

from __future__ import annotations

import warnings

import jax

from dd_jax.data import Normaliser, gather, normalise, require_on_device
from dd_jax.solvers import in_float64, label_solve
from dd_jax.solvers.system import wide_dtype
from dd_jax.synthetic.labels import targets
from dd_jax.types import Kernel, RealData


def solve_labels(
    kernel: Kernel,
    images: jax.Array,
    *,
    data: RealData,
    normaliser: Normaliser,
    ridge: float = 1e-6,
    chunk: int = 500,
) -> jax.Array:
    """The labels of given images that fit the whole real set best, see `solvers.label_solve`.

    Everything is float64 where the backend has it, the kernel included.

    Args:
      kernel: any kernel.
      images: [M, H, W, C] in model space, M at most N.
      data: the real training set, on the device.
      normaliser: of the images.
      ridge: of the solve, absolute and divided by M.
      chunk: real images whose kernel rows are held at a time.

    Returns:
      [M, K] float32: unconstrained, rows need not sum to 0.

    Raises:
      ConfigError: negative ridge, more images than real ones, a host-fed set.
    """
    require_on_device(data, "Label Solve")

    def solve(images, data, normaliser):
        def take(rows):
            stored, classes = gather(data, rows)
            real = normalise(normaliser, stored)
            block = kernel.pair(real.astype(wide_dtype()), images.astype(wide_dtype()))
            return block, targets(classes, data.spec.num_classes, kind="centred")

        gram = in_float64(kernel.gram)(images)
        count = data.labels.shape[0]
        return label_solve(gram, take, count, ridge=ridge, chunk=chunk)

    solved = jax.jit(solve)(images, data, normaliser)
    if int(solved.info.jitter_steps):
        warnings.warn(f"the labels were solved for with a ridge of {float(solved.info.ridge):.3g} "
                      f"instead of {ridge / images.shape[0]:.3g}: the kernel is nearly singular",
                      stacklevel=2)
    return solved.labels
