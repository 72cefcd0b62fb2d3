"""Kernel ridge regression from the synthetic set predicts the real labels, without any network.

  P = K_ts (K_ss + mu I)^{-1} Y_s,   mu = ridge * tr(K_ss) / n_s,   L = 1/2 mean_{b,k} (P - Y_t)^2

with a fixed kernel, such as the tangent kernel of an infinitely wide network. The targets Y_t are
centred one-hot vectors.

Source: Nguyen et al., Dataset Meta-Learning from Kernel Ridge-Regression, ICLR 2021; Dataset
Distillation with Infinitely Wide Convolutional Networks, NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.data import rows_per_class
from dd_jax.errors import ConfigError
from dd_jax.kernels import as_kernel
from dd_jax.solvers import check_ridge, fit_kernel, in_float64
from dd_jax.synthetic import targets
from dd_jax.types import Batch, Kernel, Objective, RealData, SyntheticSet


def kernel_ridge(
    kernel: Kernel | Callable,
    *,
    batch_size: int = 5000,
    ridge: float = 1e-6,
    mode: str = "trace_mean",
) -> Objective:
    """KIP's objective: real labels regressed on a kernel with the synthetic set, see the module.

    Nothing in it is random but the choice of the real batch. K_ss and the solve are float64, K_ts
    has the precision of the images; the trace in mu is differentiated, the real images are not.

    Args:
      kernel: a `Kernel`, or a function (x1, x2) -> [n1, n2]; see `kernels.blockwise` for kernels
        whose pairs do not fit into memory at once. It may close over constants only.
      batch_size: n_t, real images per step, the same number of every class.
      ridge, mode: the regulariser, see `solvers.fit_kernel`.

    Returns:
      An `Objective` over `Batch(images [K, n_t / K, H, W, C], labels [K, n_t / K])` without state.

    Raises:
      ConfigError: if the ridge is negative, the mode unknown, or `kernel` no kernel; when it is
        traced: if the number of classes does not divide the batch size.

    Example:
      >>> def linear(x1, x2):
      ...     return jnp.einsum("ihwc,jhwc->ij", x1, x2)
      >>> objective = kernel_ridge(linear, batch_size=100)
    """
    check_ridge(ridge, mode)
    kernel = as_kernel(kernel)
    gram = in_float64(kernel.gram)

    def init(key: jax.Array, synthetic: SyntheticSet):
        return ()

    def sample(data: RealData, state, key: jax.Array) -> jax.Array:
        classes = data.spec.num_classes
        if batch_size < 1 or batch_size % classes:
            raise ConfigError(
                f"batch_size is {batch_size}, expected a positive multiple of {classes} classes",
                fix=f"pass batch_size={max(1, batch_size // classes) * classes}",
            )
        return rows_per_class(data, key, batch_size // classes)

    def loss(synthetic: SyntheticSet, state, batch: Batch, key: jax.Array):
        images, labels = synthetic.images, synthetic.labels
        real = jax.lax.stop_gradient(batch.images.reshape(-1, *images.shape[1:]))
        classes = batch.labels.reshape(-1)
        fit = fit_kernel(gram(images), labels, ridge=ridge, mode=mode)
        cross = kernel.pair(real, images)
        predictions = jnp.matmul(cross, fit.alpha, precision="highest")
        wanted = targets(classes, labels.shape[-1], kind="centred")
        value = 0.5 * jnp.mean((predictions - wanted) ** 2)
        return value, {
            "accuracy": jnp.mean(jnp.argmax(predictions, -1) == classes),
            "jitter_steps": fit.info.jitter_steps,
            "condition": fit.info.condition,
        }

    def advance(synthetic: SyntheticSet, state, batch: Batch, key: jax.Array):
        return state

    return Objective(init=init, sample=sample, loss=loss, advance=advance)
