"""The stored form and the order of steps that IDC introduced and several later papers took over.

Differs from the official codes of IDC, IDM, M3D and NCFM:
  - the images live in model space; but for IDM's, the optimizer, its rate and the range [0, 1] are
    those of pixels all the same, and images are cut to the range after every step (in IDC's code
    once per network, in NCFM's once per iteration);
  - shown images come image after image (in IDC's and IDM's codes patch after patch);
  - preset "cpu" steps once for all classes; "official" once per class and step, as there, where a
    class moves on by its momentum while the others have their turn;
  - the accuracy is that of the last epoch of the last set, not the best one seen on the test set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax

from dd_jax.data import grey, real_rows
from dd_jax.methods.frame import Settings, Site, Whole
from dd_jax.objectives import class_by_class
from dd_jax.synthetic import check_start, multi_formation, pasted_start, pixels
from dd_jax.types import Objective, RealData


class Formed(Settings):
    """Settings of sets whose stored images show several each.

    Attributes:
      factor: patches per side of a stored image, which shows factor^2 images to networks.
      in_turn: a step of the optimizer for every class, instead of one for all.
    """

    # Pixels have a range, so they are standardised; all codes have CIFAR-100 by CIFAR-10's numbers.
    normaliser: ClassVar[str] = "published_cifar"
    factor: Whole = 2
    in_turn: bool = True

    def check(self, at: Site) -> None:
        check_start("real", at.data, self.ipc * self.factor**2)

    def formed(
        self, at: Site, objective: Objective, iterations: int, *,
        interpolation: str = "nearest",
        choose: Callable[[RealData, jax.Array, int], jax.Array] = real_rows,
    ) -> dict[str, Any]:
        """Fields of a recipe: the start, the stored form, and one step for every class in turn.

        Args:
          at: the site.
          objective: of all classes.
          iterations: how often every class is stepped.
          interpolation, choose: of the start, see `synthetic.pasted_start`.
        """
        turns = at.classes if self.in_turn else 1
        if self.in_turn:
            objective = class_by_class(objective, turns)
        return {**self.stored(at, interpolation=interpolation, choose=choose),
                "objective": objective, "steps": iterations * turns}

    def stored(self, at: Site, **options: Any) -> dict[str, Any]:
        """Fields of a recipe: standardised pixels, each stored image showing factor^2 of them."""
        return {
            "start": pasted_start(at.normaliser, ipc=self.ipc, factor=self.factor, **options),
            "parameterization": multi_formation(pixels(labels="fixed"), factor=self.factor,
                                                fill=grey(at.normaliser, 0.5)),
        }
