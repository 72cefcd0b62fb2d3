"""RaT-BPTT's loop, whatever a set is stored as: Adam inside, a window of its steps, capped Adam."""

from __future__ import annotations

from typing import Annotated, Any

import jax.numpy as jnp
import optax

from dd_jax import pools
from dd_jax.methods.families.unrolling import Unrolling
from dd_jax.methods.frame import Normalisation, Rate, Seed, Site, Views, Whole, above_zero, one_of
from dd_jax.objectives import unrolled
from dd_jax.train import student
from dd_jax.train.plans import Plan
from dd_jax.train.window import WINDOW_MODES, RandomWindow
from dd_jax.transforms import capped_gradient, kept_between


class Windowed(Unrolling):
    """Settings of RaT-BPTT's loop; the defaults are for CIFAR-10.

    Attributes:
      window, inner_steps, first_step: W, T and the smallest n0, see `train.window.RandomWindow`.
      window_mode: "random", "last" or "forward".
      patience: looks, one every `hold` steps, without a new lowest loss after which a "forward"
        window goes on; the official number is for long runs.
      hold: outer steps that a window stays.
      inner_rate, adam_root: of the inner Adam, and the constant in its root.
      image_rate, label_rate: of the Adam on images and on learned labels.
      cap: gradients of images are cut at so many times the moving average of their norms.
      labels: "fixed" or "learned", at least 0.
      augmentation: of synthetic and real images, and in the test; a name in `augment.by_name`.
      evaluation_steps, evaluation_seeds: of the networks that test the set, and how many.
    """

    batch_size: Whole = 5000
    normaliser: Normalisation = "zca_per_image_raw"
    window: Whole = 60
    inner_steps: Whole = 200
    first_step: Seed = 0
    window_mode: Annotated[str, one_of(WINDOW_MODES, "window mode")] = "random"
    patience: Whole = 60
    hold: Whole = 10
    inner_rate: Rate = 1e-3
    adam_root: Rate = 1e-12
    image_rate: Rate = 1e-3
    label_rate: Rate = 1e-3
    cap: Annotated[float, above_zero("no gradient of an image would pass", 2.0)] = 2.0
    labels: Annotated[str, one_of(("fixed", "learned"))] = "fixed"
    augmentation: Views = "flip_rotate"
    evaluation_steps: Whole = 1000
    evaluation_seeds: Whole = 8

    def windowed(
        self, at: Site, *, plan: Plan, batch: int, images: int, order: str, free: bool = False
    ) -> dict[str, Any]:
        """Fields of a recipe: the loop's objective, its optimizers and the test.

        Args:
          at: the site.
          plan: which images of the set an inner step takes; `batch` of them.
          images: how many the set shows.
          order: of the images in the test, see `Protocol`.
          free: whether labels are free numbers, not probabilities.
        """
        network, augmentation = at.convnet(), at.augmentation()
        window = RandomWindow(self.window, self.inner_steps, self.first_step, self.window_mode,
                              self.hold, self.patience)

        def objective(adjoint: str):
            learner = student(
                network, steps=self.inner_steps, augmentation=augmentation, plan=plan,
                optimizer=optax.scale_by_adam(eps_root=self.adam_root),
                adjoint=self.adjoint_of(adjoint, plain=False))
            return unrolled(learner, pool=pools.fresh_pool(network), window=window,
                            augmentation=augmentation, rate=self.inner_rate,
                            batch_size=at.rows(self.batch_size))

        return {
            "objective": self.with_variants(objective),
            "optimizer": {
                "images": optax.chain(capped_gradient(self.cap), optax.adam(self.image_rate)),
                "labels": optax.chain(optax.adam(self.label_rate), kept_between(0.0, jnp.inf))},
            "evaluation": at.protocol(
                _name(self), width=self.width, optimizer="adam",
                learning_rate=self.inner_rate, schedule="constant", order=order, batch_size=batch,
                epochs=-(-self.evaluation_steps // -(-images // batch)),
                loss="free_cross_entropy" if free else "auto", seeds=self.evaluation_seeds),
        }


def _name(settings: Windowed) -> str:
    return type(settings).__module__.rsplit(".", 1)[-1]
