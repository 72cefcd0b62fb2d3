"""WMDD: Dataset Distillation via the Wasserstein Metric (Liu et al., ICCV 2025).

A teacher is trained on the real images. The synthetic images of a class start as noise; Adam makes
their features the Wasserstein barycentre of the class's real ones, and the statistics of the
teacher's batch normalisations those of the class. The teacher's probabilities are their labels.

Differs from the official code:
  - soft labels are those of the finished images, one for each; the paper stores the teacher's
    logits for 300 epochs of crops and CutMix (fast knowledge distillation), which is not offered.
    `labels="hard"` leaves the classes;
  - all blocks of classes take their steps together, each with its own draws; as they share
    nothing, that is what they do one after another. The last block may be smaller;
  - plans of the barycentre are entropic (there exact). With equal weights its positions follow the
    plans all the way, 20 times (there a fifth of the way, at most ten); with `learn_weights` the
    weights are the best ones for the positions (there mirror descent), and a student does not weigh
    images by them;
  - the teacher's random crops are cut to the image where they leave it (there drawn again);
  - ResNet-18 has a 3x3 stem without pooling, and images keep their size (there 224 pixels);
  - images are not stored as JPEG;
  - evaluation: the accuracy of the last epoch (there the best of every tenth). Labels and outputs
    are softened alike, which is the paper's divergence at its temperature; augmentation and CutMix
    change images and mix labels, and the teacher is not asked again.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import jax
import optax

from dd_jax.augment.block import crop_flip_roll
from dd_jax.backend import in_chunks
from dd_jax.data import grey, identity
from dd_jax.distill.needs import arrays, teacher
from dd_jax.methods.families.teachers import Taught
from dd_jax.methods.frame import Site, Tested
from dd_jax.methods.frame.fields import Norm, Rate, Seed, Share, Whole, above_zero, one_of
from dd_jax.objectives.barycentre_matching import DISTANCES, barycentre_matching
from dd_jax.synthetic import Labels, class_start
from dd_jax.train.class_targets import class_targets
from dd_jax.train.teachers import train_supervised
from dd_jax.transforms import decayed_momentum, kept_between


class WMDD(Taught, Tested):
    """Settings of WMDD; the defaults are the official ones for ImageNet and its parts.

    Attributes:
      steps: of Adam, whose rate falls to 0 by a cosine.
      learning_rate: its first rate, in model space; 0.1 for Tiny-ImageNet.
      statistics_weight: of the batch-normalisation statistics; 500 for Tiny-ImageNet.
      label_weight: of the cross-entropy; 1 in the released script, 0 in the paper.
      distance: of features, "unsquared" (released) or "squared" (paper).
      learn_weights: weights of the barycentre; False in the released script, True in the paper.
      block_images: images of the classes that share a distance and an augmentation.
      area, roll, mirror_views: smallest area of the crops, largest roll in pixels (None: a seventh
        of a side, 32 of 224) and mirroring, through which the teacher sees the images; without the
        roll also those that it is trained on.
      teacher_epochs, teacher_rate, teacher_decay: of its SGD of momentum 0.9, whose rate falls to 0
        by a cosine.
      labels: "soft" or "hard".
      temperature: of the soft labels and, in the evaluation, of the students' outputs.
      mix: the probability of CutMix per batch, of the evaluation.
      evaluation_norm: of the networks that test the set; they have the teacher's architecture.
    """

    normaliser: ClassVar[str] = "published"  # of ImageNet and its parts
    ipc: int = 10
    steps: Whole = 2000
    learning_rate: Rate = 0.25
    statistics_weight: Rate = 10.0
    label_weight: Rate = 1.0
    distance: Annotated[str, one_of(DISTANCES)] = "unsquared"
    learn_weights: bool = False
    block_images: Whole = 100
    area: float = 0.08
    roll: Seed | None = None
    mirror_views: bool = True
    teacher_epochs: Rate = 50
    teacher_batch_size: Whole = 32
    teacher_rate: Rate = 0.025
    teacher_decay: Rate = 1e-4
    labels: Annotated[str, one_of(("soft", "hard"))] = "soft"
    temperature: Annotated[float, above_zero("scores are divided by it", 20.0)] = 20.0
    mix: Share = 1.0
    evaluation_norm: Norm = "batch"
    evaluation_width: Whole = 64
    evaluation_epochs: Whole | None = 300

    presets = {
        "official": {},  # for images of 224 pixels
        "cpu": {0: dict(area=1.0, roll=0, mirror_views=False, teacher="convnet", teacher_width=32,
                        teacher_epochs=2, teacher_batch_size=128, teacher_rate=0.1,
                        temperature=4.0, mix=0.0, evaluation_norm="instance",
                        evaluation_width=32, evaluation_epochs=None),
                2: dict(steps=500)},
    }

    def _roll(self, at: Site) -> int:
        return min(at.spec.shape[:2]) // 7 if self.roll is None else self.roll

    def _views(self, at: Site, roll: int):
        return crop_flip_roll(at.spec.shape, area=self.area, flip=self.mirror_views, roll=roll)

    def check(self, at: Site) -> None:
        self._views(at, self._roll(at))  # before the teacher is trained

    def needs(self, at: Site) -> dict:
        network, views = self.teacher_network(at), self._views(at, 0)
        batch_size = at.rows(self.teacher_batch_size)
        steps = max(1, math.ceil(self.teacher_epochs * at.data.labels.shape[0] / batch_size))
        trainer = decayed_momentum(optax.cosine_decay_schedule(self.teacher_rate, steps),
                                   weight_decay=self.teacher_decay)

        def train(data, key, normaliser):
            return train_supervised(network, data, normaliser=normaliser, key=key, steps=steps,
                                    batch_size=batch_size, optimizer=trainer,
                                    augmentation=views)[1]

        settings = dict(steps=steps, batch_size=batch_size, rate=self.teacher_rate,
                        decay=self.teacher_decay, area=self.area, flip=self.mirror_views)
        taught = teacher(network, train, settings=settings, normaliser=at.whitening,
                         seed=self.teacher_seed)

        def targets(data, key, normaliser, teacher):
            return class_targets(network, teacher, data, self.ipc, normaliser=normaliser, key=key,
                                 learn_weights=self.learn_weights)

        def like():
            variables = jax.eval_shape(network.init, jax.random.key(0))
            return jax.eval_shape(targets, at.data, jax.random.key(0), identity(at.spec.shape),
                                  variables)

        wanted = dict(count=self.ipc, learn_weights=self.learn_weights)
        return {"teacher": taught, "targets": arrays(
            "class_targets", wanted, targets, like, seed=self.teacher_seed,
            needs={"normaliser": at.whitening, "teacher": taught})}

    def build(self, at: Site) -> dict:
        network, variables = self.teacher_network(at), at.have["teacher"]
        black, white = (grey(at.normaliser, level) for level in (0.0, 1.0))
        soft = self.labels == "soft"

        @jax.jit
        def soft_labels(images: jax.Array) -> jax.Array:
            logits = in_chunks(lambda x: network.apply(variables, x).logits, images)
            return jax.nn.softmax(logits / self.temperature)

        def finalise(synthetic, data, key):
            return synthetic._replace(labels=soft_labels(synthetic.images))

        adam = optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps), 0.5, 0.9)
        objective = barycentre_matching(
            network, variables, at.have["targets"], distance=self.distance,
            block=max(1, self.block_images // self.ipc),
            augmentation=self._views(at, self._roll(at)),
            label_weight=self.label_weight, statistics_weight=self.statistics_weight)
        return dict(
            objective=objective,
            start=class_start("noise", normaliser=at.normaliser, ipc=self.ipc, kind="one_hot"),
            optimizer=optax.chain(adam, kept_between(black, white)),
            labels=Labels("probabilities" if soft else "one_hot"),
            finalise=finalise if soft else None,
            evaluation=at.protocol(
                "wmdd", network=self.teacher, norm=self.evaluation_norm, optimizer="adamw",
                weight_decay=0.01, learning_rate=1e-3, schedule="warmup_cosine", warmup=0,
                final_fraction=0.0, batch_size=100, cutmix=self.mix,
                output_scale=self.temperature if soft else 1.0),
        )
