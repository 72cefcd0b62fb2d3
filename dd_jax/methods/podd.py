"""PoDD: Distilling Datasets Into Less Than One Image (Shul, Horwitz and Hoshen, 2024).

RaT-BPTT's loop on the overlapping patches of one poster that all classes share, whose labels go by
place; classes that look alike are neighbours on it.

Differs from the official code:
  - as RaT-BPTT does, see `methods.rat_bptt`;
  - classes are ordered by the distances of their mean images (there by those of their names in a
    text model);
  - patches of an inner step are drawn from one permutation of all after another (there anew for
    each step), the whole set where it is as small;
  - patches lie a quarter of an image apart, but for the published numbers at 0.9 images per class,
    6 x 16 where nothing is published (there chosen by hand for every data set);
  - where images are not whitened, areas of the poster start with unit variance for each pixel, as
    standardised images have (there with norm one always);
  - the poster has the pixels that the budget allows and the aspect of the grid of classes, at 0.9
    images per class of CIFAR-10 the published one;
  - the accuracy is that of the last set (there the checkpoint is chosen by training accuracy).
"""

from __future__ import annotations

from dd_jax.data import check_classes
from dd_jax.methods.families import by_data
from dd_jax.methods.families.windowed import Windowed
from dd_jax.methods.frame import Site, Whole
from dd_jax.synthetic import Labels, class_start, poster
from dd_jax.synthetic.class_order import class_grid, class_order, mean_image_distances
from dd_jax.synthetic.poster_layout import patch_counts, poster_shape
from dd_jax.train.plans import permuted


class PoDD(Windowed):
    """Settings of PoDD, beside those of `Windowed`; `ipc` may be a fraction.

    Attributes:
      grid_rows: of the grid of classes; None: the most that are not above the columns.
      rows, columns: patches along the poster's sides; None: a quarter of an image apart.
      patch_batch: patches of an inner step; None or more than there are for all.
      fractions, label_ipc: of fixed and of learned labels, see `synthetic.poster`.
      ordered: whether neighbours on the grid are alike; False takes the classes as they come.
    """

    fractional = True
    ipc: float = 1.0
    steps: Whole = 100_000
    grid_rows: Whole | None = None
    rows: Whole | None = None
    columns: Whole | None = None
    patch_batch: Whole | None = None
    fractions: bool = False
    label_ipc: Whole = 1
    ordered: bool = True
    evaluation_steps: Whole = 2000

    for_data = by_data.PODD
    presets = {
        "official": {0: dict(by_data.patches(6, 16), patch_batch=96)},
        "cpu": {0: dict(steps=500, batch_size=256, window=12, inner_steps=36, hold=1, rows=None,
                        columns=None, inner_rate=3e-3, image_rate=0.02, label_rate=0.01,
                        normaliser="standardise", augmentation="none", labels="learned",
                        patch_batch=20, width=32, evaluation_steps=300, evaluation_seeds=5)},
    }

    def check(self, at: Site) -> None:
        self.adjoint_of(self.adjoint, plain=False)
        check_classes(at.data, at_least=1)

    def build(self, at: Site) -> dict:
        grid, order = class_grid(at.classes, self.grid_rows), None
        shape = poster_shape(self.ipc, at.spec.shape, class_grid=grid)
        rows, columns = patch_counts(shape, at.spec.shape)
        rows, columns = self.rows or rows, self.columns or columns
        if self.ordered:
            order = class_order(mean_image_distances(at.data, at.normaliser), grid=grid).tolist()
        shown = rows * columns
        batch = min(self.patch_batch or shown, shown)
        fields = self.windowed(at, plan=permuted(batch), batch=batch, images=shown, order="random")
        return dict(
            fields, objective=fields["objective"]._replace(bound="its images overlap"),
            labels=Labels("probabilities"),
            start=class_start("noise", normaliser=at.normaliser, ipc=1, kind="one_hot"),
            parameterization=poster(shape=shape, image_shape=at.spec.shape, patches=(rows, columns),
                                    class_grid=grid, order=order, labels=self.labels,
                                    fractions=self.fractions, label_ipc=self.label_ipc,
                                    unit_variance=at.normaliser.whiten is None),
        )
