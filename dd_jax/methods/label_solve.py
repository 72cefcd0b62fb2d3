"""Label Solve: real images with the labels that make kernel ridge regression fit best.

Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression, ICLR 2021. Nothing is
learned by steps: the one step of the recipe leaves the images as they are and logs the loss of
their centred one-hot labels, and then the labels are solved for in closed form.

Differs from the official code: as KIP does in whitening and evaluation, see `methods.kip`; the
whole training set is gone through in chunks, in float64.
"""

from __future__ import annotations

import dataclasses
import warnings

import jax
import optax

from dd_jax.data import Normaliser, gather, normalise, normalisers, require_on_device
from dd_jax.distill.recipe import Recipe
from dd_jax.evaluate import ReadOut
from dd_jax.methods import kip
from dd_jax.methods.record import Method, Published, require_positive
from dd_jax.objectives.kernel_ridge import kernel_ridge
from dd_jax.solvers import in_float64, label_solve
from dd_jax.solvers.system import wide_dtype
from dd_jax.synthetic import check_start, class_start, pixels, targets
from dd_jax.types import Kernel, RealData, SyntheticSet

_CITATION = (
    "T. Nguyen, Z. Chen, J. Lee. Dataset Meta-Learning from Kernel Ridge-Regression. ICLR 2021."
)


@dataclasses.dataclass(frozen=True)
class LabelSolve:
    """Settings of Label Solve; the defaults are the official ones.

    Attributes:
      ipc: images per class.
      ridge: of the solve, absolute and divided by the number of images.
      kernel: a name in `kernels.named`.
      start: "real", "noise" or "class_means", the images.
      normaliser, evaluation, evaluation_width, evaluation_steps: as of `kip.KIP`.
    """

    ipc: int = 1
    ridge: float = 1e-6
    kernel: str = "convnet"
    start: str = "real"
    normaliser: str | None = None
    evaluation: str = "kip"
    evaluation_width: int = 1024
    evaluation_steps: int | None = None


def official(ipc: int) -> LabelSolve:
    """The settings of the official code."""
    return LabelSolve(ipc=ipc)


def cpu(ipc: int) -> LabelSolve:
    """Settings for five minutes on two CPU cores: a fully connected kernel, the common networks."""
    return LabelSolve(ipc=ipc, kernel="fc3", evaluation="frepo", evaluation_width=32,
                      evaluation_steps=None if ipc < 10 else 600)


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


def recipe(config: LabelSolve, data: RealData) -> Recipe:
    """Label Solve as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe` whose `finalise` solves for the labels; put it on another recipe of kernel ridge
      regression by `dataclasses.replace` to relabel that one's images.

    Raises:
      ConfigError: a setting that cannot be.
    """
    require_positive(config, "ipc", "evaluation_width")
    check_start(config.start, data, config.ipc)
    spec = data.spec
    normaliser = normalisers(kip.normaliser_name(config.normaliser, spec), data)
    kernel = kip.kernel_by_name(config.kernel)

    def finalise(synthetic: SyntheticSet, data: RealData, key: jax.Array) -> SyntheticSet:
        return synthetic._replace(labels=solve_labels(
            kernel, synthetic.images, data=data, normaliser=normaliser, ridge=config.ridge))

    return Recipe(
        method="label_solve",
        settings=dataclasses.asdict(config),
        initialise=class_start(config.start, normaliser=normaliser, ipc=config.ipc, kind="centred"),
        parameterization=pixels(labels="fixed"),
        objective=kernel_ridge(kernel, batch_size=kip.balanced_batch(5000, data)),
        optimizer=optax.set_to_zero(),
        steps=1,
        finalise=finalise,
        normaliser=normaliser,
        label_kind="centred",
        evaluation=kip.evaluation(config, spec),
        read_out=ReadOut(config.kernel),
        citation=_CITATION,
    )


def _published() -> dict[tuple[str, int], Published]:
    rows = {
        "mnist": {1: 73.4, 10: 96.4, 50: 98.3},
        "fashion_mnist": {1: 65.3, 10: 80.8, 50: 86.9},
        "svhn": {1: 23.9, 10: 52.8, 50: 76.8},
        "cifar10": {1: 26.1, 10: 53.6, 50: 65.9},
        "cifar100": {1: 23.8, 5: 34.9, 10: 39.2},
    }
    return {(name, ipc): Published(mean, None, "Label Solve, ConvNet kernel, released table")
            for name, cells in rows.items() for ipc, mean in cells.items()}


READ_OUT_PUBLISHED = _published()
METHOD = Method(
    name="label_solve",
    title="Dataset Meta-Learning from Kernel Ridge-Regression",
    config=LabelSolve,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={},
    published_read_out=READ_OUT_PUBLISHED,
    citation=_CITATION,
)
