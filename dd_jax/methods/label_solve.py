"""Label Solve: real images with the labels that make kernel ridge regression fit best.

Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression, ICLR 2021. Nothing is
learned by steps: the labels are solved for in closed form.

Differs from the official code: as KIP does in whitening and evaluation, see `methods.kip`; the
whole training set is gone through in chunks, in float64.
"""

from __future__ import annotations

import optax

from dd_jax.data import require_on_device
from dd_jax.evaluate import ReadOut
from dd_jax.methods.families.kernels import KernelSettings, balanced_batch, kernel_by_name
from dd_jax.methods.frame import Site
from dd_jax.objectives.kernel_ridge import kernel_ridge
from dd_jax.synthetic import Labels
from dd_jax.synthetic.solved_labels import solve_labels


class LabelSolve(KernelSettings):
    """Settings of Label Solve, those in `KernelSettings`; `ridge` is absolute and divided by the
    number of images."""

    presets = {
        "official": {},
        "cpu": {0: dict(kernel="fc3", evaluation="frepo", evaluation_width=32,
                        evaluation_rate=1.2e-3),  # FRePo's, see there
                10: dict(evaluation_steps=600)},
    }

    def check(self, at: Site) -> None:
        super().check(at)
        require_on_device(at.data, "Label Solve")

    def build(self, at: Site) -> dict:
        kernel = kernel_by_name(self.kernel)

        def finalise(synthetic, data, key):
            return synthetic._replace(labels=solve_labels(
                kernel, synthetic.images, data=data, normaliser=at.normaliser, ridge=self.ridge))

        return dict(
            objective=kernel_ridge(kernel, batch_size=balanced_batch(5000, at.data)),
            optimizer=optax.set_to_zero(),
            steps=0,
            finalise=finalise,
            labels=Labels("centred"),
            evaluation=self.kernel_test(at, read_out=ReadOut(self.kernel)),
        )
