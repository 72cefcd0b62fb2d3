"""Kernels that are inner products of computed features.

A function of images with P outputs is a kernel of rank P, for the cost of n evaluations instead
of n^2 pairs. With the features of random wide networks it approximates the kernel of the infinite
one.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.errors import ConfigError
from dd_jax.kernels.functions import symmetrised
from dd_jax.types import Kernel, Network, PyTree


def network_features(network: Network, variables: PyTree) -> Callable[[jax.Array], jax.Array]:
    """The penultimate features of a network at given variables, in evaluation mode.

    Args:
      network: the architecture.
      variables: what `network.init` returned, or what training made of it.

    Returns:
      images [n, H, W, C] -> [n, P].

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> features = network_features(network, network.init(jax.random.key(0)))
      >>> features(jnp.ones((3, 4, 4, 1))).shape
      (3, 8)
    """

    def features(images: jax.Array) -> jax.Array:
        return network.apply(variables, images).features

    return features


def _evaluate(features: Callable, images: jax.Array, chunk: int | None) -> jax.Array:
    """[n, P] in the dtype of the images; the shape is checked before anything is computed."""
    out = jax.eval_shape(features, images)
    shape = getattr(out, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != images.shape[0]:
        found = f"shape {shape}" if shape is not None else f"a {type(out).__name__}"
        raise ConfigError(
            f"the features of images {images.shape} have {found}, expected "
            f"({images.shape[0]}, P)", fix="flatten them: features.reshape(len(images), -1)",
        )
    return in_chunks(features, images, size=chunk).astype(images.dtype)


def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b.T, precision="highest")


def feature_kernel(
    features: Callable[[jax.Array], jax.Array], *, scale: float = 1.0, offset: float = 0.0,
    centre: jax.Array | None = None, chunk: int | None = None, name: str = "features",
) -> Kernel:
    """The conjugate kernel of a feature map.

    k(x, x') = scale * <phi(x) - c, phi(x') - c> + offset.

    Args:
      features: phi, images [b, H, W, C] -> [b, P], each row from its own image alone.
      scale: a positive number.
      offset: at least 0; the variance of a bias.
      centre: c, [P], for example the mean feature of a reference set; None for zero.
      chunk: images per evaluation; None for the backend's default.
      name: for tables and file names.

    Returns:
      A `Kernel` of rank at most P (P + 1 with an offset). Its memory per pair is that of the
      result; the features take P numbers per image.

    Raises:
      ConfigError: a scale or offset out of range or, when it is called, features not [b, P].

    Example:
      >>> kernel = feature_kernel(lambda images: images.reshape(len(images), -1))
      >>> kernel(2 * jnp.ones((1, 1, 3, 1))).tolist()
      [[12.0]]
    """
    if not callable(features):
        raise ConfigError(f"features is {features!r}, expected a function of images",
                          fix="pass for example network_features(network, variables)")
    if not 0.0 < scale < float("inf") or not 0.0 <= offset < float("inf"):
        raise ConfigError(f"scale is {scale!r} and offset is {offset!r}, expected a positive "
                          "number and one of at least 0", fix="pass scale=1.0, offset=0.0")

    def phi(images: jax.Array) -> jax.Array:
        out = _evaluate(features, images, chunk)
        return out if centre is None else out - jnp.asarray(centre, out.dtype)

    def pair(x1: jax.Array, x2: jax.Array) -> jax.Array:
        return scale * _inner(phi(x1), phi(x2)) + offset

    def gram(x: jax.Array) -> jax.Array:
        f = phi(x)
        return symmetrised(scale * _inner(f, f) + offset)

    return Kernel(pair=pair, gram=gram, pair_bytes=lambda shape: 8, name=name)


def random_feature_kernel(
    network: Network, key: jax.Array, *, count: int = 8, w2: float = 2.0, b2: float = 0.01,
    chunk: int | None = None, name: str | None = None,
) -> Kernel:
    """The kernel of `count` fresh random networks, an unbiased estimate of a finite-width NNGP.

    k(x, x') = w2 / (M F) * sum_m <f_m(x), f_m(x')> + b2,

    with f_m(x) in R^F the features of network m: the covariance of a dense read-out with weight
    variance w2 and bias variance b2 on all features side by side. As the width grows it tends to
    the NNGP kernel of the architecture, where the initialisation is Gaussian with the same w2, b2
    (`init_style="gaussian"` has 2 and 0.01). The networks are one by one multiplied into the
    result, so that M F features are never held at once in the forward pass.

    Args:
      network: the architecture, with features [n, F].
      key: a typed PRNG key; the same key gives the same kernel.
      count: M.
      w2, b2: variances of the read-out.
      chunk: images per evaluation; None for the backend's default.
      name: for tables; None for one made of the network's.

    Returns:
      A `Kernel`. It may be built inside a jitted step, from the key of that step.

    Raises:
      ConfigError: a count or a variance out of range.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> spec = DataSpec("toy", (4, 4, 1), 2, ("a", "b"))
      >>> network = nets.mlp(spec, width=8, init_style="gaussian")
      >>> kernel = random_feature_kernel(network, jax.random.key(0), count=2)
      >>> kernel(jnp.ones((3, 4, 4, 1))).shape
      (3, 3)

    Source: Loo et al., Efficient Dataset Distillation using Random Feature Approximation,
    NeurIPS 2022.
    """
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"count is {count!r}, expected a number of networks of at least 1",
                          fix="pass count=8")
    if not 0.0 < w2 < float("inf") or not 0.0 <= b2 < float("inf"):
        raise ConfigError(f"w2 is {w2!r} and b2 is {b2!r}, expected a positive number and one of "
                          "at least 0", fix="pass w2=2.0, b2=0.01")
    stack = jax.vmap(network.init)(jax.random.split(key, count))

    def summed(inner: Callable, x1: jax.Array, n2: int) -> jax.Array:
        def one(total, variables):
            def phi(images):
                return _evaluate(network_features(network, variables), images, chunk)

            # Divided before it is summed: F is known only here.
            return total + inner(phi), None

        total, _ = jax.lax.scan(one, jnp.zeros((x1.shape[0], n2), x1.dtype), stack)
        return w2 / count * total + b2

    def pair(x1: jax.Array, x2: jax.Array) -> jax.Array:
        def inner(phi):
            f1, f2 = phi(x1), phi(x2)
            return _inner(f1, f2) / f1.shape[-1]

        return summed(inner, x1, x2.shape[0])

    def gram(x: jax.Array) -> jax.Array:
        def inner(phi):
            f = phi(x)
            return _inner(f, f) / f.shape[-1]

        return symmetrised(summed(inner, x, x.shape[0]))

    return Kernel(pair=pair, gram=gram, pair_bytes=lambda shape: 8,
                  name=name or f"{count} random {network.name}")
