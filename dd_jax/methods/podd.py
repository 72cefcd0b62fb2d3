"""PoDD: Distilling Datasets Into Less Than One Image (Shul, Horwitz and Hoshen, 2024).

RaT-BPTT's loop on the overlapping patches of one poster that all classes share, whose labels go by
place; classes that look alike are neighbours on it.

Differs from the official code:
  - as RaT-BPTT does, see `methods.rat_bptt`;
  - classes are ordered by the distances of their mean images (there by those of their names in a
    text model);
  - patches of an inner step are drawn from one permutation of all after another (there anew for
    each step), the whole set where it is as small;
  - patches lie a quarter of an image apart, but for the published 6 x 16 of preset "official" at
    0.9 images per class (there chosen by hand for every data set);
  - the poster of a budget has the pixels that the budget allows and the aspect of the grid of
    classes; the settings for CIFAR-10 give the published one at 0.9 images per class;
  - the accuracy is that of the last set (there the checkpoint is chosen by training accuracy).
"""

from __future__ import annotations

import dataclasses
import math

from dd_jax.data import check_classes, normalisers
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import ConfigError
from dd_jax.methods.record import Method, require_positive, require_positive_if_given
from dd_jax.methods.windowed import WindowedSettings, check_windowed, windowed_recipe
from dd_jax.synthetic import (
    class_order,
    class_start,
    mean_image_distances,
    patch_counts,
    poster,
    poster_shape,
)
from dd_jax.train.plans import permuted
from dd_jax.types import RealData

_CITATION = (
    "A. Shul, E. Horwitz, Y. Hoshen. Distilling Datasets Into Less Than One Image. 2024."
)


@dataclasses.dataclass(frozen=True)
class PoDD(WindowedSettings):
    """Settings of PoDD, beside those of `WindowedSettings`; `ipc` may be a fraction.

    Attributes:
      grid_rows: of the grid of classes; None: the most that are not above the columns.
      rows, columns: patches along the poster's sides; None: a quarter of an image apart.
      patch_batch: patches of an inner step; None or more than there are for all.
      fractions, label_ipc: of fixed and of learned labels, see `synthetic.poster`.
      ordered: whether neighbours on the grid are alike; False takes the classes as they come.
    """

    ipc: float = 1.0
    steps: int = 100_000
    grid_rows: int | None = None
    rows: int | None = None
    columns: int | None = None
    patch_batch: int | None = None
    fractions: bool = False
    label_ipc: int = 1
    ordered: bool = True
    evaluation_steps: int = 2000


def official(ipc: float) -> PoDD:
    """The official settings for CIFAR-10, published for 0.9 images per class.

    The 6 x 16 patches of that budget are for a poster of ten classes: for another number pass your
    own `rows` and `columns`, or None for patches a quarter of an image apart.
    """
    rows, columns = (6, 16) if ipc == 0.9 else (None, None)
    return PoDD(ipc=ipc, rows=rows, columns=columns, patch_batch=96)


def cpu(ipc: float) -> PoDD:
    """Settings for five minutes on one or two CPU cores."""
    return PoDD(ipc=ipc, steps=500, batch_size=256, window=12, inner_steps=36, hold=1,
                inner_rate=3e-3, image_rate=0.02, label_rate=0.01, normaliser="standardise",
                augmentation="none", labels="learned", patch_batch=20, width=32,
                evaluation_steps=300, evaluation_seeds=5)


def recipe(config: PoDD, data: RealData) -> Recipe:
    """PoDD as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
      DataError: a class without images.
    """
    check_windowed(config)
    require_positive_if_given(config, "grid_rows", "rows", "columns", "patch_batch")
    require_positive(config, "label_ipc")
    check_classes(data, at_least=1)
    spec = data.spec
    grid = _grid(config, spec.num_classes)
    shape = poster_shape(config.ipc, spec.shape, class_grid=grid)
    rows, columns = patch_counts(shape, spec.shape)
    rows, columns = config.rows or rows, config.columns or columns
    order, normaliser = None, normalisers(config.normaliser, data)
    if config.ordered:
        distances = mean_image_distances(data, normaliser)
        order = class_order(distances, grid=grid).tolist()
    shown = rows * columns
    batch = min(config.patch_batch or shown, shown)
    return windowed_recipe(
        config, data, method="podd", citation=_CITATION, build=recipe, plan=permuted(batch),
        batch=batch, images=shown, order="random", label_kind="probabilities",
        normaliser=normaliser,
        initialise=class_start("noise", normaliser=normaliser, ipc=1, kind="one_hot"),
        parameterization=poster(shape=shape, image_shape=spec.shape, patches=(rows, columns),
                                class_grid=grid, order=order, labels=config.labels,
                                fractions=config.fractions, label_ipc=config.label_ipc),
        fixed_images="its images overlap",
    )


def _grid(config: PoDD, classes: int) -> tuple[int, int]:
    """(rows, columns) of the grid of classes."""
    rows = config.grid_rows
    if rows is None:
        rows = max(n for n in range(1, math.isqrt(classes) + 1) if classes % n == 0)
    if classes % rows:
        raise ConfigError(f"grid_rows is {rows}, which does not divide {classes} classes",
                          fix="leave it out")
    return rows, classes // rows


METHOD = Method(
    name="podd",
    title="Distilling Datasets Into Less Than One Image",
    config=PoDD,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={},
    citation=_CITATION,
    fractional=True,
)
