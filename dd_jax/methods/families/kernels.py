"""What the methods of analytic kernels have in common."""

from __future__ import annotations

from dd_jax.methods.families.tests import KernelTested
from dd_jax.methods.frame import Rate, Site, Whitened
from dd_jax.types import DataSpec, Kernel, RealData


class KernelSettings(Whitened, KernelTested):
    """Settings of regression with an analytic kernel; the defaults are the official ones.

    Attributes:
      ridge: regulariser, times the mean of the kernel's diagonal.
      kernel: a name in `kernels.named`: "convnet", "convnet3", "fc1" to "fc3", "myrtle5", ...
      normaliser: a name in `data.normalisers`; None: standardise grey images, whiten colour ones
        after bringing each to zero mean and unit norm.
    """

    ridge: Rate = 1e-6
    kernel: str = "convnet"

    def whitening(self, spec: DataSpec) -> str:
        return "zca_per_image"

    def check(self, at: Site) -> None:
        kernel_by_name(self.kernel)


def kernel_by_name(name: str) -> Kernel:
    """The tangent kernel of a named architecture, evaluated block by block."""
    from dd_jax import kernels

    return kernels.blockwise(kernels.named(name, kind="ntk"))


def balanced_batch(batch_size: int, data: RealData) -> int:
    """The largest class-balanced batch of at most `batch_size` that repeats no class in full."""
    classes = data.spec.num_classes
    return classes * max(1, min(batch_size // classes, int(data.class_counts.max())))
