"""Label distillation: Flexible Dataset Distillation: Learn Labels Instead of Images (Bohdal et al.,
2020).

Real images keep; their labels, which start uniform, are learned so that one step of a network on
them classifies real images. The network itself takes steps on them in between, and is replaced when
it stands still.

Differs from the official code:
  - the library's ConvNet (there LeNet and an AlexNet); base images are chosen class by class;
  - whether a network stands still is seen by its error on the step's real batch after its own step
    (there by that of the differentiated step);
  - the steps of the test are a setting (there chosen on a validation split from what a network
    lasted during distillation);
  - the second-order variant only, not the one with a ridge regression head;
  - the network's own step has the labels after the step's update (there those before it).
"""

from __future__ import annotations

import jax.numpy as jnp
import optax

from dd_jax import pools
from dd_jax.methods.families.unrolling import Unrolling
from dd_jax.methods.frame import Rate, Site, Start, Whole
from dd_jax.objectives import unrolled
from dd_jax.synthetic import Labels, pixels
from dd_jax.synthetic.fixed_images import fixed_images
from dd_jax.train import student
from dd_jax.transforms import kept_probabilities


class LabelDistillation(Unrolling):
    """Settings of label distillation, beside those of `Unrolling`.

    Attributes:
      start: "real", "noise" or "class_means".
      inner_batch_size: base images of a step.
      inner_rate: of the differentiated step.
      label_rate: of the Adam on labels.
      network_rate: of the Adam on networks, in distillation and in the test.
      window: errors whose mean says whether a network stands still.
      evaluation_steps, evaluation_seeds: of the networks that test the set, and how many.
    """

    start: Start = "real"
    inner_batch_size: Whole = 50
    inner_rate: Rate = 0.01
    label_rate: Rate = 1e-3
    network_rate: Rate = 1e-3
    window: Whole = 50
    evaluation_steps: Whole = 300
    evaluation_seeds: Whole = 20

    presets = {
        "official": {},  # for MNIST
        "cpu": {0: dict(batch_size=256, width=32, label_rate=1e-2, evaluation_seeds=5),
                1: dict(steps=1500), 2: dict(steps=900)},
    }

    def check(self, at: Site) -> None:
        self.adjoint_of(self.adjoint, plain=True)

    def build(self, at: Site) -> dict:
        network, real = at.convnet(), at.start()
        pool = pools.restarting_pool(network, optimizer=optax.adam(self.network_rate),
                                    window=self.window)

        def objective(adjoint: str):
            learner = student(network, steps=1, batch_size=self.inner_batch_size,
                              adjoint=self.adjoint_of(adjoint, plain=True))
            return unrolled(learner, pool=pool, rate=self.inner_rate, shared_batch=True,
                            batch_size=at.rows(self.batch_size))

        def start(data, key):
            given = real(data, key)
            return given._replace(labels=jnp.full_like(given.labels, 1 / at.classes))

        batch = min(self.inner_batch_size, at.images)
        return dict(
            objective=self.with_variants(objective),
            start=start,
            parameterization=fixed_images(pixels(labels="learned")),
            optimizer={"labels": optax.chain(optax.adam(self.label_rate), kept_probabilities())},
            labels=Labels("probabilities"),
            evaluation=at.protocol(
                "label_distillation", width=self.width, optimizer="adam", schedule="constant",
                learning_rate=self.network_rate, batch_size=batch, seeds=self.evaluation_seeds,
                epochs=-(-self.evaluation_steps // -(-at.images // batch))),
        )
