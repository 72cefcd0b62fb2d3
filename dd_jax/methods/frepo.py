"""FRePo: Dataset Distillation using Neural Feature Regression (Zhou et al., NeurIPS 2022).

Kernel ridge regression on the features of a pool of ageing networks; LAMB on images and labels.

Differs from the official code:
  - the regression's Gram matrix, factor and solves are float64 (float32 there), since a ridge of
    1e-6 leaves float32 few digits; at 1,000 images these are about 5e10 float64 operations a step,
    tenths of a second on a card that is slow at float64;
  - real batches are drawn without replacement within a batch, not within an epoch;
  - the pool is one stacked tree on the device, renewed inside the compiled step;
  - the last set is the result; the README's figures are those of the set that was best on test
    images, which are not looked at here;
  - evaluation reports the networks' own weights at the last step. Of sets of more than 500 images
    its batches are permutations (the published script repeats the set in its stored order);
  - whitening: fewer images than dimensions are regularised with a warning instead of cutting the
    rank; images of 128 pixels are not whitened in strided blocks.
"""

from __future__ import annotations

import optax

from dd_jax import nets, pools
from dd_jax.methods.families.tests import frepo_test
from dd_jax.methods.frame import LabelHead, NormedConvNets, Rate, Site, Whitened, Whole
from dd_jax.objectives import feature_ridge
from dd_jax.synthetic import Labels, pixels


class FRePo(Whitened, NormedConvNets):
    """Settings of FRePo; the defaults are the official ones. ConvNets double their width.

    Attributes:
      steps: outer steps.
      learning_rate: LAMB's peak rate, decayed by a cosine to a tenth.
      batch_size: real images per step.
      ridge: regulariser, times the mean of the kernel's diagonal.
      pool_size, max_age, pool_rate: networks kept, steps until one is renewed, their Adam rate.
      labels: "learned", "fixed" or "soft".
      flip: extend the set by its mirror images; None: colour sets of at most 500 images, which is
        where the official scripts have it.
      evaluation_width: width of the networks that test the set.
      evaluation_steps: steps they are trained for; None: the paper's, by the number of images.
      evaluation_rate: their Adam's peak rate.
    """

    steps: Whole = 500_000
    learning_rate: Rate = 3e-4
    batch_size: Whole = 1024
    ridge: Rate = 1e-6
    norm: str = "batch"
    pool_size: Whole = 10
    max_age: Whole = 100
    pool_rate: Rate = 3e-4
    labels: LabelHead = "learned"
    flip: bool | None = None
    evaluation_width: Whole = 128
    evaluation_steps: Whole | None = None
    evaluation_rate: Rate = 3e-4

    presets = {
        "official": {},
        # The pool learns ten times as fast as officially: with few steps it would otherwise stay
        # near its initial features, and the set would not serve networks that train for longer. The
        # networks of the test have to go as far: the sum of their rates is 0.6 for one image and
        # 0.36 for ten (600 steps, what three minutes allow), that of a network of the pool 0.3;
        # officially 0.15, 0.3 and 0.03.
        "cpu": {0: dict(steps=2000, learning_rate=5e-3, batch_size=256, pool_rate=3e-3, width=32,
                        evaluation_width=32, evaluation_rate=1.2e-3),
                10: dict(evaluation_steps=600)},
    }

    def build(self, at: Site) -> dict:
        flip = (at.colour and at.images <= 500) if self.flip is None else self.flip
        network = nets.convnet_doubling(at.spec, depth=at.depth, width=self.width, norm=self.norm)
        pool = pools.ageing_pool(network, size=self.pool_size, max_age=self.max_age,
                                 optimizer=optax.adam(self.pool_rate))
        schedule = optax.cosine_decay_schedule(self.learning_rate, self.steps, alpha=0.1)
        # Soft labels are probabilities; learned and fixed ones are centred, as in the paper.
        centred = Labels("centred", (at.classes / 10) ** -0.5)
        return dict(
            objective=feature_ridge(network, pool, batch_size=at.rows(self.batch_size),
                                    ridge=self.ridge, flip=flip),
            parameterization=pixels(labels=self.labels), optimizer=optax.lamb(schedule),
            labels=Labels("probabilities") if self.labels == "soft" else centred,
            evaluation=frepo_test(at, width=self.evaluation_width, steps=self.evaluation_steps,
                                  learning_rate=self.evaluation_rate, flip=at.colour))
