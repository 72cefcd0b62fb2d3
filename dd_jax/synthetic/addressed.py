"""Images as linear combinations of a few small bases that all classes share.

  x[c, r] = up(sum_k A[c, r, k] b_k),   b_k [H / ds, W / ds, C],   k in 0..bases-1

"up" enlarges ds times, bilinearly with half-pixel centres and clamped edges. It is linear, so the
bases are enlarged once and combined afterwards: of many images only the combination is computed.

What is stored, bases and addresses, takes the bytes of few images and shows many: report both.

Source: Deng and Russakovsky, Remember the Past: Distilling Datasets into Addressable Memories for
Neural Networks, NeurIPS 2022.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_whole
from dd_jax.synthetic.pixels import pixels
from dd_jax.types import Parameterization, SyntheticSet

_LEAVES = {"bases": "images", "addresses": "images"}


def addressed(
    *, bases: int, rows: int, downsample: int = 2, per_class: bool = False
) -> Parameterization:
    """`rows` images of every class, each an address: its coefficients on `bases` bases.

    The set is class-major and its labels are fixed. Of the start are used the size and the number
    of classes, the label of each class's first image, learning rate and temperature; its images
    are not: bases and addresses begin as officially, uniform within sqrt(6 / (fan in + fan out))
    as matrices [bases, values of a base] and [K * rows, bases].

    Args:
      bases: of all classes together, or of each with `per_class`.
      rows: images shown per class; `address_rows` gives those that a budget allows.
      downsample: ds, which must divide H and W.
      per_class: whether every class has bases of its own.

    Returns:
      A `Parameterization` whose params are {"bases": [bases, H / ds, W / ds, C] (with a leading
      axis K for `per_class`), "addresses": [K, rows, bases]}, both in group "images" so that one
      clipping sees them together, "labels" [K, K], constant, and those of rate and temperature.

    Raises:
      ConfigError: sizes below 1; at `init`, sides that `downsample` does not divide, or images
        that are not equally many for each class.

    Example:
      >>> start = SyntheticSet(jnp.zeros((2, 4, 4, 1)), jnp.eye(2))
      >>> few = addressed(bases=3, rows=5)
      >>> params = few.init(jax.random.key(0), start)
      >>> few.decode(params, jax.random.key(1)).images.shape
      (10, 4, 4, 1)
    """
    for name, value in (("bases", bases), ("rows", rows), ("downsample", downsample)):
        require_whole(name, value)
    head = pixels(labels="fixed")

    def init(key: jax.Array, start: SyntheticSet) -> dict:
        shape, classes = _checked(start, downsample)
        params = head.init(key, start._replace(
            labels=start.labels.reshape(classes, -1, classes)[:, 0]))
        params.pop("images")
        small = (shape[0] // downsample, shape[1] // downsample, shape[2])
        base_key, address_key = jax.random.split(key)

        def xavier(key, *shape, fans):
            bound = math.sqrt(6.0 / fans)
            return jax.random.uniform(key, shape, start.images.dtype, -bound, bound)

        own = (classes,) if per_class else ()
        return {**params,
                "bases": xavier(base_key, *own, bases, *small, fans=math.prod(small) + bases),
                "addresses": xavier(address_key, classes, rows, bases,
                                    fans=classes * rows + bases)}

    def decode(params: dict, key: jax.Array) -> SyntheticSet:
        stored, addresses = params["bases"], params["addresses"]
        *front, height, width, channels = stored.shape
        # Up only, so there is nothing to smooth away.
        shown = jax.image.resize(stored, (*front, downsample * height, downsample * width,
                                          channels), "bilinear", antialias=False)
        sum_over = "crk,ckhwd->crhwd" if per_class else "crk,khwd->crhwd"
        images = jnp.einsum(sum_over, addresses, shown, precision="highest")
        rest = {name: leaf for name, leaf in params.items() if name not in _LEAVES}
        rest["labels"] = jnp.repeat(rest["labels"], addresses.shape[1], axis=0)
        return head.decode({**rest, "images": images.reshape(-1, *images.shape[2:])}, key)

    def groups(params: dict) -> dict:
        rest = {name: leaf for name, leaf in params.items() if name not in _LEAVES}
        return {**head.groups(rest), **_LEAVES}

    record = dict(bases=bases, rows=rows, downsample=downsample, per_class=per_class)
    return Parameterization(init=init, decode=decode, groups=groups,
                            record=("addressed", record))


def address_rows(
    ipc: float, shape: tuple[int, int, int], *, classes: int, bases: int, downsample: int = 2,
    per_class: bool = False,
) -> int:
    """Images per class that bases and addresses show at the numbers of `ipc` images per class.

      r = floor((ipc H W C K - bases H W C / ds^2) / (K bases))

    Labels are not counted, here as in the papers.

    Args:
      ipc: the budget in images per class, above 0.
      shape: (H, W, C).
      classes: K.
      bases, downsample, per_class: as for `addressed`.

    Returns:
      r, at least 1.

    Raises:
      ConfigError: wrong sizes, or a budget that the bases alone use up.

    Example:
      >>> address_rows(1, (32, 32, 3), classes=10, bases=16)
      115
    """
    for name, value in (("classes", classes), ("bases", bases), ("downsample", downsample)):
        require_whole(name, value)
    _check_divides(shape, downsample)
    if isinstance(ipc, bool) or not isinstance(ipc, (int, float)) or not 0 < ipc < math.inf:
        raise ConfigError(f"ipc is {ipc!r}, expected a number above 0", fix="pass ipc=1")
    size = math.prod(shape)
    taken = bases * (size // downsample**2) * (classes if per_class else 1)
    # Rounded, so that a fraction such as 0.7 does not lose a number to its binary form.
    rows = (math.floor(round(ipc * size * classes, 6)) - taken) // (classes * bases)
    if rows < 1:
        raise ConfigError(
            f"{bases} bases take {taken} of the {ipc * size * classes:g} numbers of {ipc} images "
            "per class and leave no address for each class", fix="pass fewer bases")
    return rows


def _checked(start: SyntheticSet, downsample: int) -> tuple[tuple[int, int, int], int]:
    count, *shape = start.images.shape
    classes = start.labels.shape[-1]
    if count % classes or start.labels.shape[0] != count:
        raise ConfigError(f"there are {count} images with labels {start.labels.shape}, expected "
                          f"equally many of each of {classes} classes",
                          fix="start from a class-major set with a label for every class")
    _check_divides(shape, downsample)
    return tuple(shape), classes


def _check_divides(shape, downsample: int) -> None:
    for size in shape[:2]:
        if size % downsample:
            raise ConfigError(f"downsample is {downsample}, which does not divide {size} pixels",
                              fix="pass downsample=1, or another divisor of height and width")
