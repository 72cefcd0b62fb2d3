"""The stored form that IDC introduced and that several later papers took over."""

from __future__ import annotations

from collections.abc import Callable

import jax

from dd_jax.data import grey, real_rows, standardise
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
    return {
        "normaliser": normaliser,
        "initialise": pasted_start(normaliser, ipc=ipc, factor=factor, choose=choose,
                                   interpolation=interpolation),
        "parameterization": multi_formation(pixels(labels="fixed"), factor=factor,
                                             fill=grey(normaliser, 0.5)),
    }
