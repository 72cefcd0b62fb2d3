"""The stored form and the order of steps that IDC introduced and several later papers took over."""

from __future__ import annotations

from collections.abc import Callable

import jax

from dd_jax.data import grey, real_rows, standardise
from dd_jax.objectives import class_by_class
from dd_jax.synthetic import multi_formation, pasted_start, pixels
from dd_jax.types import DataSpec, Objective, RealData


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


def stepped(objective: Objective, spec: DataSpec, *, iterations: int, in_turn: bool) -> dict:
    """Fields of a recipe: one step of the optimiser for every class in turn, or one for all.

    Args:
      objective: of all classes.
      spec: of the images.
      iterations: how often every class is stepped.
      in_turn: which of the two.

    Returns:
      {"objective", "steps", "turns"}, for `Recipe(**stepped(...), ...)`.
    """
    if not in_turn:
        return {"objective": objective, "steps": iterations}
    turns = spec.num_classes
    return {"objective": class_by_class(objective), "steps": iterations * turns, "turns": turns}
