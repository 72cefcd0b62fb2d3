"""LinBa: Remember the Past (Deng and Russakovsky, NeurIPS 2022).

Back-propagation through many steps of gradient descent with momentum, into a few bases that all
classes share and the addresses by which every class combines them to many images.

Differs from the official code: real batches are without repetition within a class, and with many
classes all of them are in every one (there a random part); addresses have no penalty (there one is
added to the inner loss, where it changes nothing); the accuracy is that of the last set.
"""

from __future__ import annotations

import optax

from dd_jax import pools
from dd_jax.data import check_classes
from dd_jax.methods.families.unrolling import Unrolling
from dd_jax.methods.frame import Rate, Site, Views, Whole
from dd_jax.objectives import unrolled
from dd_jax.synthetic import address_rows, addressed, class_start
from dd_jax.train import class_rows, student


class LinBa(Unrolling):
    """Settings of LinBa, beside those of `Unrolling`; `batch_size` counts per class.

    Every class gives as many real images, at most as many as the smallest has.

    Attributes:
      bases, downsample, own_bases: of the memory; whether every class has bases of its own.
      inner_steps, inner_rate, inner_momentum: of the gradient descent on the memory's images.
      per_class: of these images, for each class in a step, drawn anew.
      memory_rate, memory_momentum, clip: SGD on these; the largest norm of its gradients.
      augmentation: one draw for all steps and real images, a name in `augment.by_name`; the test
        draws it anew for every image.
      evaluation_epochs, evaluation_batch_size, evaluation_seeds: of the networks of the test.
    """

    steps: Whole = 500_000
    batch_size: Whole = 64
    bases: Whole = 16
    downsample: Whole = 2
    own_bases: bool = False
    inner_steps: Whole = 150
    inner_rate: Rate = 0.01
    inner_momentum: Rate = 0.9
    per_class: Whole = 32
    memory_rate: Rate = 0.1
    memory_momentum: Rate = 0.5
    clip: Rate = 2.0
    augmentation: Views = "none"
    evaluation_epochs: Whole = 300
    evaluation_batch_size: Whole = 640
    evaluation_seeds: Whole = 10

    presets = {
        "official": {},  # for CIFAR-10 at one image per class
        "cpu": {0: dict(steps=300, batch_size=26, inner_steps=20, inner_rate=0.02, per_class=2,
                        width=32, evaluation_epochs=100, evaluation_seeds=5)},
    }

    def check(self, at: Site) -> None:
        self.adjoint_of(self.adjoint, plain=False)
        check_classes(at.data, at_least=1)

    def build(self, at: Site) -> dict:
        sizes = dict(bases=self.bases, downsample=self.downsample, per_class=self.own_bases)
        rows = address_rows(self.ipc, at.spec.shape, classes=at.classes, **sizes)
        network, augmentation = at.convnet(), at.augmentation()
        batch_size = min(self.batch_size, int(at.data.class_counts.min()))

        def objective(adjoint: str):
            learner = student(
                network, steps=self.inner_steps, augmentation=augmentation, shared_draw=True,
                plan=class_rows(at.classes, min(self.per_class, rows)),
                optimizer=optax.trace(self.inner_momentum),
                adjoint=self.adjoint_of(adjoint, plain=False))
            return unrolled(learner, pool=pools.fresh_pool(network), rate=self.inner_rate,
                            per_class=True, batch_size=batch_size, augmentation=augmentation)

        sgd = optax.sgd(self.memory_rate, momentum=self.memory_momentum)
        return dict(
            objective=self.with_variants(objective),
            start=class_start("noise", normaliser=at.normaliser, ipc=1, kind="one_hot"),
            parameterization=addressed(rows=rows, **sizes),
            optimizer=optax.chain(optax.clip_by_global_norm(self.clip), sgd),
            evaluation=at.protocol(
                "linba", width=self.width, learning_rate=self.inner_rate,
                momentum=self.inner_momentum, weight_decay=0.0, schedule="constant",
                batch_size=self.evaluation_batch_size, seeds=self.evaluation_seeds))
