"""Maximum mean discrepancy of features in a kernel's space.

  d = mean K(X, X) - 2 mean K(X, Y) + mean K(Y, Y)

X and Y are features of synthetic and real images; means are over all pairs, those of an image with
itself included (the biased estimate).

Source: Zhang et al., M3D: Dataset Condensation by Minimizing Maximum Mean Discrepancy, AAAI 2024;
Gretton et al., A Kernel Two-Sample Test, JMLR 2012.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.errors import unknown
from dd_jax.objectives.discrepancy import Discrepancy

_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
_RATES = (0.1, 1.0, 5.0)


def _products(z: jax.Array) -> jax.Array:
    return jnp.matmul(z, z.T, precision="highest")


def squared_distances(z: jax.Array) -> jax.Array:
    """[n, P] -> [n, n]; features are centred first, which costs nothing and keeps digits."""
    z = z - jax.lax.stop_gradient(jnp.mean(z, axis=0))
    products = _products(z)
    norms = jnp.diagonal(products)
    return jnp.maximum(norms[:, None] + norms[None, :] - 2 * products, 0.0)


def _gaussian(z: jax.Array) -> jax.Array:
    distances = squared_distances(z)
    count = z.shape[0]
    bandwidth = jax.lax.stop_gradient(jnp.sum(distances)) / max(count * (count - 1), 1)
    bandwidth = jnp.where(bandwidth > 0, bandwidth, 1.0)  # images that all look the same
    return sum(jnp.exp(-distances / (width * bandwidth)) for width in _WIDTHS)


def _laplace(z: jax.Array) -> jax.Array:
    distances = squared_distances(z)
    return sum(jnp.exp(-rate * distances) for rate in _RATES)


KERNELS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gaussian": _gaussian,
    "linear": _products,
    "polynomial": lambda z: (_products(z) + 1.0) ** 2,
    "laplace": _laplace,
}


def kernel_means(kernel: str = "gaussian") -> Discrepancy:
    """M3D's discrepancy, see the module.

    Args:
      kernel: "gaussian", sum over m in {1/4, 1/2, 1, 2, 4} of exp(-|a - b|^2 / (m b0)), where b0,
        a constant, is the mean squared distance of the different images of both sets; "linear",
        <a, b>, which makes it that of DM; "polynomial", (<a, b> + 1)^2; "laplace", so named by the
        authors, sum over g in {0.1, 1, 5} of exp(-g |a - b|^2).

    Returns:
      A `Discrepancy` of all pairs of features.

    Raises:
      ConfigError: an unknown kernel.

    Example:
      >>> x = jnp.array([[0.0], [2.0]])
      >>> kernel_means("linear").compare(x, x + 1, None).item()
      1.0
    """
    if kernel not in KERNELS:
        raise unknown("kernel of the discrepancy", kernel, KERNELS)
    gram = KERNELS[kernel]

    def compare(real, synthetic, drawn):
        count = synthetic.shape[0]
        values = gram(jnp.concatenate([synthetic, real]))
        within, across, beyond = (values[:count, :count], values[:count, count:],
                                  values[count:, count:])
        return jnp.mean(within) - 2 * jnp.mean(across) + jnp.mean(beyond)

    return Discrepancy(collect=lambda outputs: outputs.features, compare=compare)
