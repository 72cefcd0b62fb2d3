"""A linear map of the pixels, learned along with the images: a preconditioner of their descent.

  images = reshape(flatten(X) T),   X [M, d] of another parameterization, T [d, d], d = H W C

T starts as the identity, so the start is what it was. A step on X moves the images by the gradient
times T T^T, and a step on T moves all images together.

Source: Loo et al., Efficient Dataset Distillation using Random Feature Approximation, NeurIPS 2022.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.types import Parameterization, SyntheticSet

_LEAF = "preconditioner"


def preconditioned(parameterization: Parameterization) -> Parameterization:
    """Another parameterization, its images multiplied by a learned [d, d] matrix.

    The matrix is shared by all images and has H * W * C rows: 2.5 MB for 28x28 grey images, 38 MB
    for 32x32 colour ones, and two moments of the same size in the optimizer.

    Args:
      parameterization: makes the images before the map, such as `pixels()`; its params are a dict.

    Returns:
      A `Parameterization` whose params are those of the other one and "preconditioner" [d, d],
      which is a group of its own name.

    Raises:
      ConfigError: at `init`, params that are no dict or have that leaf already.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dd_jax.synthetic import pixels
      >>> learned = preconditioned(pixels())
      >>> start = SyntheticSet(jnp.ones((2, 3, 3, 1)), jnp.eye(2))
      >>> params = learned.init(jax.random.key(0), start)
      >>> params["preconditioner"].shape
      (9, 9)
    """

    def inner(params: dict) -> dict:
        return {name: leaf for name, leaf in params.items() if name != _LEAF}

    def init(key: jax.Array, start: SyntheticSet) -> dict:
        params = parameterization.init(key, start)
        if not isinstance(params, dict) or _LEAF in params:
            found = sorted(params) if isinstance(params, dict) else type(params).__name__
            raise ConfigError(
                f"the parameterization's params are {found}, expected a dict without {_LEAF!r}",
                fix="wrap a parameterization such as pixels(), once",
            )
        size = start.images[0].size
        return {**params, _LEAF: jnp.eye(size, dtype=start.images.dtype)}

    def decode(params: dict, key: jax.Array) -> SyntheticSet:
        synthetic = parameterization.decode(inner(params), key)
        flat = synthetic.images.reshape(synthetic.images.shape[0], -1)
        images = jnp.matmul(flat, params[_LEAF], precision="highest")
        return synthetic._replace(images=images.reshape(synthetic.images.shape))

    def groups(params: dict) -> dict:
        return {**parameterization.groups(inner(params)), _LEAF: _LEAF}

    return Parameterization(init=init, decode=decode, groups=groups)
