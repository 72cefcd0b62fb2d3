"""The stored form that IDC introduced and that several later papers took over."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.data import normalise, real_rows, standardise
from dd_jax.synthetic import multi_formation, pasted_start, pixels
from dd_jax.types import RealData


def formed(
    data: RealData,
    *,
    ipc: int,
    factor: int,
    interpolation: str = "nearest",
    choose: Callable[[RealData, jax.Array, int], jax.Array] = real_rows,
) -> dict:
    """Fields of a recipe: standardised pixels, each stored image showing factor^2 of them.

    Args:
      data: the real set.
      ipc: stored images per class.
      factor: patches per side.
      interpolation, choose: of the start, see `synthetic.pasted_start`.

    Returns:
      {"normaliser", "initialise", "parameterization"}, for `Recipe(**formed(...), ...)`.
    """
    normaliser = standardise(data)
    grey = normalise(normaliser, jnp.full((1, 1, data.spec.shape[-1]), 0.5))[0, 0]
    return {
        "normaliser": normaliser,
        "initialise": pasted_start(normaliser, ipc=ipc, factor=factor, choose=choose,
                                   interpolation=interpolation),
        "parameterization": multi_formation(pixels(labels="fixed"), factor=factor, fill=grey),
    }
