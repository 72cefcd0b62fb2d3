"""Bases that all go through the same few learned maps: every base gives one image by each map.

  image[m, j] = full_j(scale_j * valid_j(base_m) + shift_j),   j in 0..N-1

valid_j is a 3x3 convolution that shrinks [H, W, C] to [H - 2, W - 2, C], full_j a transposed one
that brings it back, both with a bias; scale_j and shift_j are [H - 2, W - 2, C]. One such
*hallucinator* has 18 C^2 + 2 C + 2 (H - 2) (W - 2) C numbers, at 32x32x3 as many as 1.8 images.

The adversarial contrast term that HaBa adds to its objective, which pushes the images of one base
apart, is a matter of the objective and not part of this.

Source: Liu et al., Dataset Distillation via Factorization, NeurIPS 2022.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import map_over
from dd_jax.errors import ConfigError, require_whole
from dd_jax.types import Parameterization, SyntheticSet

_GROUP = "hallucinators"
_LEAVES = ("valid_kernel", "valid_bias", "scale", "shift", "full_kernel", "full_bias")


def hallucinated(parameterization: Parameterization, *, hallucinators: int = 5) -> Parameterization:
    """Another parameterization's images as bases, each shown through N learned hallucinators.

    The result is class-major: base after base, each with its N images, and the label of a base is
    that of its images. The hallucinators start as officially: uniform kernels and biases within
    1 / sqrt(9 C), scale 1 and shift 0, and so far from the identity that the first images are
    smaller than the bases in contrast.

    Args:
      parameterization: makes the bases, such as `pixels()`; its params are a dict.
      hallucinators: N.

    Returns:
      A `Parameterization` whose params are those of the other one and, in group "hallucinators",
      "valid_kernel" and "full_kernel" [N, 3, 3, C, C], "valid_bias" and "full_bias" [N, C],
      "scale" and "shift" [N, H - 2, W - 2, C].

    Raises:
      ConfigError: hallucinators below 1; at `init`, images smaller than 3x3, or params that are no
        dict or have one of these leaves already.

    Example:
      >>> from dd_jax.synthetic import pixels
      >>> shown = hallucinated(pixels(), hallucinators=3)
      >>> start = SyntheticSet(jnp.ones((2, 4, 4, 1)), jnp.eye(2))
      >>> params = shown.init(jax.random.key(0), start)
      >>> shown.decode(params, jax.random.key(1)).images.shape
      (6, 4, 4, 1)
    """
    count = hallucinators
    require_whole("hallucinators", count, example=5)

    def inner(params: dict) -> dict:
        return {name: leaf for name, leaf in params.items() if name not in _LEAVES}

    def init(key: jax.Array, start: SyntheticSet) -> dict:
        height, width, channels = start.images.shape[1:]
        if min(height, width) < 3:
            raise ConfigError(f"images are {height}x{width}, expected at least 3x3",
                              fix="use another parameterization for such small images")
        key, *keys = jax.random.split(key, 5)
        params = parameterization.init(key, start)
        if not isinstance(params, dict) or set(_LEAVES) & set(params):
            found = sorted(params) if isinstance(params, dict) else type(params).__name__
            raise ConfigError(f"the parameterization's params are {found}, expected a dict "
                              f"without {', '.join(_LEAVES)}",
                              fix="wrap a parameterization such as pixels(), once")
        bound = 1.0 / math.sqrt(9 * channels)

        def uniform(key, *shape):
            return jax.random.uniform(key, (count, *shape), start.images.dtype, -bound, bound)

        map_shape = (count, height - 2, width - 2, channels)
        return {
            **params,
            "valid_kernel": uniform(keys[0], 3, 3, channels, channels),
            "valid_bias": uniform(keys[1], channels),
            "scale": jnp.ones(map_shape, start.images.dtype),
            "shift": jnp.zeros(map_shape, start.images.dtype),
            "full_kernel": uniform(keys[2], 3, 3, channels, channels),
            "full_bias": uniform(keys[3], channels),
        }

    def decode(params: dict, key: jax.Array) -> SyntheticSet:
        bases = parameterization.decode(inner(params), key)

        def show(own: dict) -> jax.Array:
            hidden = _correlate(bases.images, own["valid_kernel"]) + own["valid_bias"]
            hidden = own["scale"] * hidden + own["shift"]
            # Transposed is correlated with the flipped kernel, zeros around.
            padded = jnp.pad(hidden, ((0, 0), (2, 2), (2, 2), (0, 0)))
            return _correlate(padded, own["full_kernel"][::-1, ::-1]) + own["full_bias"]

        images = map_over(show, {name: params[name] for name in _LEAVES}).swapaxes(0, 1)
        return bases._replace(images=images.reshape(-1, *images.shape[2:]),
                              labels=jnp.repeat(bases.labels, count, axis=0))

    def groups(params: dict) -> dict:
        return {**parameterization.groups(inner(params)), **dict.fromkeys(_LEAVES, _GROUP)}

    return Parameterization(init=init, decode=decode, groups=groups)


def _correlate(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Valid 3x3 correlation of [M, H, W, C] with [3, 3, C, C].

    Whole rows of pixels times a banded matrix, once for each row of the kernel: with so few
    channels the larger products are faster on a CPU than those of the pixels themselves.
    """
    count, height, width, channels = x.shape
    across = np.arange(width)[:, None] - np.arange(width - 2)
    place = np.stack([across == j for j in range(3)]).astype(np.float32)
    bands = jnp.einsum("jab,ijcd->iacbd", place, kernel, precision="highest")
    bands = bands.reshape(3, width * channels, (width - 2) * channels)
    rows = x.reshape(count, height, width * channels)
    out = sum(jnp.matmul(rows[:, i : i + height - 2], bands[i], precision="highest")
              for i in range(3))
    return out.reshape(count, height - 2, width - 2, channels)
