"""RCIG: Dataset Distillation with Convexified Implicit Gradients (Loo et al., ICML 2023).

Implicit gradients of a linearised network's ridge regression, from a pool of ageing networks;
AdaBelief on images, labels and a temperature, whose moving averages are the result.

Differs from the official code:
  - the inner loss is collapsed analytically (see `objectives.linearised`), at a fraction of the
    work; the ridge system is float64 throughout (an option there, for the solve);
  - every inner run of Adam starts with a new state. There it goes on from that of the network's
    training in the pool, so the iterates are the same for new networks only: at an age of 40 the
    first step is 0.64 rates, and in 20 steps the frozen weights drift by 8.5 rates of the pool;
  - the last layer's kernel is no part of the tangent, neither in the inner problem nor in the
    adjoint system, as in the paper (the code masks it in the inner optimizer, which lets a tiny
    ascent step through, and keeps it in the adjoint system);
  - the solver's rate for v is searched for with the synthetic set in place of a real batch;
  - one in ten inner runs is watched, by repeating it, when their rate is adapted (there all);
  - gradients are of the whole synthetic set and the whole real batch: no sub-sampling of either,
    which the official scripts have for CIFAR-100 with 50 per class, Tiny-ImageNet and ImageNet;
  - the pool is one stacked tree on the device (there on the host); its ages start staggered, and a
    network that has done its 100 steps serves once more before it is renewed;
  - mirror images: on for colour sets of at most 1,000 images (there also off for ImageNet with one
    per class);
  - a start of "noise" is that of `synthetic.start_images` (there 0.3 times a standard normal);
  - evaluation: networks train on the set itself, with random mirroring as part of the augmentation
    (there mirror images are appended too, so the set is twice what it is said to be). It is the
    test with augmentation, for the nominal number of steps (the one without is not offered; its
    loop runs 2.5 times as long as it says, at the schedule's floor).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dd_jax import nets, pools
from dd_jax.methods.families.tests import frepo_test
from dd_jax.methods.frame import Decay, LabelHead, NormedConvNets, Rate, Site, Whitened, Whole
from dd_jax.objectives.linearised_ridge import linearised_ridge
from dd_jax.synthetic import Labels, pixels, with_mirrors


class RCIG(Whitened, NormedConvNets):
    """Settings of RCIG; the defaults are the official ones. ConvNets double their width.

    Attributes:
      steps: outer steps.
      learning_rate, temperature_rate: AdaBelief's, for images and labels and for the temperature.
      average: decay of the moving average that is the result.
      batch_size: real images per step.
      l2_rate: ridge per synthetic image; None: 5e-4, or 5e-2 from 128 pixels on.
      solver, solver_steps: of the inner problem and of the implicit system: "adam" or "cg".
      activation: "relu" or "softplus60"; None: the smooth one up to depth 3.
      pool_size, max_age, pool_rate: networks kept, steps until one is renewed, their Adam rate.
      pool_steps: most training steps of a network after a use; their number is random.
      labels: "learned", "fixed" or "soft".
      flip: extend the set by its mirror images; None: colour sets of at most 1,000 images.
      evaluation_width: width of the networks that test the set.
      evaluation_steps: steps they are trained for; None: 1,000 for up to 10 images, else 2,000.
      evaluation_rate: their Adam's peak rate.
    """

    steps: Whole = 10_000
    learning_rate: Rate = 3e-3
    temperature_rate: Rate = 3e-2
    average: Decay = 0.99
    batch_size: Whole = 1024
    l2_rate: Rate | None = None
    solver: str = "adam"
    solver_steps: Whole = 20
    norm: str = "none"
    activation: str | None = None
    pool_size: Whole = 30
    max_age: Whole = 100
    pool_rate: Rate = 5e-5
    pool_steps: Whole = 15
    labels: LabelHead = "learned"
    flip: bool | None = None
    evaluation_width: Whole = 128
    evaluation_steps: Whole | None = None
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
                10: dict(steps=150, evaluation_steps=600)},
    }

    def _pool(self, network, at: Site, flip: bool):
        return pools.ageing_pool(
            network, size=self.pool_size, max_age=max(1, self.max_age - 1),
            optimizer=optax.adam(self.pool_rate), loss=_half_mean_square, max_batch=2 * at.images,
            train_steps=(1, self.pool_steps), transform=with_mirrors if flip else None)

    def build(self, at: Site) -> dict:
        flip = (at.colour and at.images <= 1000) if self.flip is None else self.flip
        large = min(at.spec.shape[:2]) >= 128
        l2_rate = (5e-2 if large else 5e-4) if self.l2_rate is None else self.l2_rate
        kind = "probabilities" if self.labels == "soft" else "centred"
        network = nets.convnet_doubling(
            at.spec, depth=at.depth, width=self.width, norm=self.norm, norm_first=False,
            activation=self.activation or ("softplus60" if at.depth <= 3 else "relu"))
        main = optax.adabelief(self.learning_rate)
        return dict(
            objective=linearised_ridge(
                network, self._pool(network, at, flip), batch_size=at.rows(self.batch_size),
                l2_rate=l2_rate, flip=flip, solver=self.solver, solver_steps=self.solver_steps),
            start=at.start(kind, temperature=True),
            parameterization=pixels(labels=self.labels),
            optimizer={"images": main, "labels": main,
                       "temperature": optax.adabelief(self.temperature_rate)},
            labels=Labels(kind),
            average=self.average,
            evaluation=frepo_test(
                at, name="rcig", width=self.evaluation_width, flip=at.colour, batch_size=256,
                steps=self.evaluation_steps or (1000 if at.images <= 10 else 2000),
                learning_rate=self.evaluation_rate,
                augmentation="rcig" if at.colour else "rcig_digits"),
        )


def _half_mean_square(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return 0.5 * jnp.mean((logits - labels) ** 2, axis=-1)
