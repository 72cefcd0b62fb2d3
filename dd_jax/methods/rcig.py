"""RCIG: Dataset Distillation with Convexified Implicit Gradients (Loo et al., ICML 2023).

Implicit gradients of a linearised network's ridge regression, from a pool of ageing networks;
AdaBelief on images, labels and a temperature, whose moving averages are the result.

Differs from the official code:
  - the inner problem, its solvers and what gradients are of: see `objectives.linearised_ridge`;
  - the pool, see `families.features`, and the test, see `families.tests`;
  - sets of ImageNet with one image per class have mirror images, too (there they have none);
  - a start of "noise" is that of `synthetic.start_images` (there 0.3 times a standard normal).
"""

from __future__ import annotations

import optax

from dd_jax.labels.losses import mean_squared_error
from dd_jax.methods.families.features import FeatureSettings
from dd_jax.methods.frame import Decay, Rate, Site, Whole
from dd_jax.objectives.linearised_ridge import linearised_ridge
from dd_jax.synthetic import Labels, pixels, with_mirrors


class RCIG(FeatureSettings):
    """Settings of RCIG, those in `FeatureSettings` and:

    Attributes:
      steps: outer steps.
      learning_rate, temperature_rate: AdaBelief's, for images and labels and for the temperature.
      average: decay of the moving average that is the result.
      l2_rate: ridge per synthetic image; None: 5e-4, or 5e-2 from 128 pixels on.
      solver, solver_steps: of the inner problem and of the implicit system: "adam" or "cg".
      activation: "relu" or "softplus60"; None: the smooth one up to depth 3.
      pool_steps: most training steps of a network after a use; their number is random.
      flip: extend the set by its mirror images; None: colour sets of at most 1,000 images.
      evaluation_steps: of the networks of the test; None: 1,000 for up to 10 images, else 2,000.
    """

    steps: Whole = 10_000
    learning_rate: Rate = 3e-3
    temperature_rate: Rate = 3e-2
    average: Decay = 0.99
    l2_rate: Rate | None = None
    solver: str = "adam"
    solver_steps: Whole = 20
    norm: str = "none"
    activation: str | None = None
    pool_size: Whole = 30
    pool_rate: Rate = 5e-5
    pool_steps: Whole = 15
    evaluation_rate: Rate = 1e-4

    presets = {
        # Steps are those of the CIFAR-10 checkpoints.
        "official": {1: dict(steps=15_000), 2: {}},
        # The pool learns faster than officially, and the networks of the test go as far, for
        # FRePo's reasons; by few steps at a high rate, since fifteen cost as much as a solve. Five
        # conjugate gradient steps come nearer to both solutions than twenty of Adam. The average
        # is of ten sets or so; of a hundred it would be as old as a third of the run.
        "cpu": {0: dict(steps=500, learning_rate=1e-2, average=0.9, batch_size=256, solver="cg",
                        solver_steps=5, width=32, pool_size=10, pool_rate=3e-3, pool_steps=3,
                        evaluation_width=32, evaluation_rate=1.2e-3),
                10: dict(steps=150, learning_rate=3e-2, evaluation_steps=600)},
    }

    def build(self, at: Site) -> dict:
        flip = self.mirrored(at, most=1000)
        large = min(at.spec.shape[:2]) >= 128
        l2_rate = (5e-2 if large else 5e-4) if self.l2_rate is None else self.l2_rate
        kind = "probabilities" if self.labels == "soft" else "centred"
        activation = self.activation or ("softplus60" if at.depth <= 3 else "relu")
        network = self.network(at, norm_first=False, activation=activation)
        pool = self.pool(
            network, max_age=max(1, self.max_age - 1), max_batch=2 * at.images,
            loss=lambda logits, labels: 0.5 * mean_squared_error(logits, labels),
            train_steps=(1, self.pool_steps), transform=with_mirrors if flip else None)
        main = optax.adabelief(self.learning_rate)
        steps = self.evaluation_steps or (1000 if at.images <= 10 else 2000)
        return dict(
            objective=linearised_ridge(
                network, pool, batch_size=at.rows(self.batch_size), l2_rate=l2_rate, flip=flip,
                solver=self.solver, solver_steps=self.solver_steps),
            start=at.start(kind, temperature=True),
            parameterization=pixels(labels=self.labels),
            optimizer={"images": main, "labels": main,
                       "temperature": optax.adabelief(self.temperature_rate)},
            labels=Labels(kind), average=self.average,
            evaluation=self.test(at, name="rcig", batch_size=256, steps=steps,
                                 augmentation="rcig" if at.colour else "rcig_digits"))
