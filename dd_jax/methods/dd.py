"""DD: Dataset Distillation (Wang et al., 2018).

A network classifies real images after some steps of gradient descent on the set, each with its own
batch and its own learned rate; Adam on pixels and rates through all steps. Order and rates are part
of the set: it is tested in this order and at these rates, by a protocol of order "stored".

Differs from the official code:
  - the library's ConvNet, with its own initialisation (there LeNet and an AlexNet with local
    response normalisation, Xavier weights, zero biases);
  - the budget is counted in images per class, cut into batches of as many for every class; by
    default one image of each class per step, as there;
  - rates are learned as logarithms (there as inverse softplus, which is the same for small ones);
  - real batches are drawn without replacement within a batch, not within an epoch, and Adam's rate
    is halved after each tenth of the steps (there after each 40 of 400 epochs);
  - one network per step (there one by default, four in its documentation);
  - inner steps are checkpointed, which is the official backward pass in other words;
  - the released figures for one fixed network (MNIST, ten images: 94; CIFAR-10, 100 images: 54)
    want initialisation="fixed"; the table has those of random ones;
  - with pretrained starts a set is for networks like those, but the library's test starts from
    random ones.
"""

from __future__ import annotations

from typing import Annotated

import optax

from dd_jax import pools
from dd_jax.distill.needs import bank
from dd_jax.errors import ConfigError, require_whole
from dd_jax.methods.families.unrolling import Unrolling
from dd_jax.methods.frame import Site, with_rate
from dd_jax.methods.frame.fields import LearnedRate, Rate, Seed, Start, Whole, one_of
from dd_jax.methods.frame.settings import method_name
from dd_jax.objectives import unrolled
from dd_jax.pools.bank import bank_pool
from dd_jax.synthetic import Labels, pixels
from dd_jax.train import stored_order, student
from dd_jax.train.teachers import train_supervised

INITIALISATIONS = ("random", "fixed", "pretrained")


class DD(Unrolling):
    """Settings of DD, beside those of `Unrolling`.

    Attributes:
      start: "real", "noise" or "class_means".
      batches: K, that the set is cut into; None: one image of each class in every batch.
      epochs: E, times that these are gone through: the student takes K E steps.
      initialisation: where networks start: "random", "fixed" (one and the same, also in the test)
        or "pretrained" (a bank of networks trained on real images for some steps).
      network_seed: of the fixed network.
      bank, bank_steps, bank_seed: pretrained networks, their steps of Adam on 128 real images, and
        the seed of their training.
      networks: random networks per outer step, over which the gradient is averaged.
      image_rate: of the Adam on pixels, rates and learned labels.
      rate: of all inner steps at first.
    """

    start: Start = "noise"
    batches: Whole | None = None
    epochs: Whole = 3
    initialisation: Annotated[str, one_of(INITIALISATIONS, "initialisation of networks")] = "random"
    network_seed: Seed = 0
    bank: Whole = 200
    bank_steps: Whole = 400
    bank_seed: Seed = 0
    networks: Whole = 1
    image_rate: Rate = 0.01
    rate: LearnedRate = 0.02

    presets = {
        "official": {0: dict(steps=23_400)},  # for MNIST, 400 epochs
        "cpu": {0: dict(batch_size=256, width=32, image_rate=0.02, bank=10),
                1: dict(epochs=10, steps=700), 2: dict(epochs=3, steps=250)},
    }

    def labels(self) -> dict:
        """How labels are stored, what they mean, and the loss of networks on them."""
        return dict(labels="fixed", kind="one_hot", loss="auto")

    def _batches(self) -> int:
        return self.ipc if self.batches is None else self.batches

    def check(self, at: Site) -> None:
        self.adjoint_of(self.adjoint, plain=True)
        if self.networks > 1 and self.initialisation != "random":
            raise ConfigError(f"networks is {self.networks}, but initialisation "
                              f"{self.initialisation!r} gives one network in every step",
                              fix="pass networks=1 or initialisation='random'")
        require_whole("batches", self._batches(), example=self.ipc)
        if self.ipc % self._batches():
            raise ConfigError(f"batches is {self._batches()}, which does not divide the {self.ipc} "
                              "images of a class", fix=f"pass batches={self.ipc} or batches=1")

    def needs(self, at: Site) -> dict:
        if self.initialisation != "pretrained":
            return {}
        network, numbers = at.convnet(), dict(steps=self.bank_steps, batch_size=128)

        def train(data, key, normaliser):
            return train_supervised(network, data, normaliser=normaliser, key=key,
                                    optimizer=optax.adam(1e-3), **numbers)

        settings = dict(numbers, optimizer="adam", rate=1e-3)
        return {"bank": bank(network, self.bank, train, settings=settings,
                             normaliser=at.whitening, seed=self.bank_seed)}

    def _pool(self, at: Site, network):
        if self.initialisation == "fixed":
            return pools.fixed_pool(network, seed=self.network_seed)
        if self.initialisation == "pretrained":
            trained = at.have["bank"][1]
            return bank_pool((trained, trained), interpolated=False)
        return pools.fresh_pool(network)

    def build(self, at: Site) -> dict:
        per_class, labels = self.ipc // self._batches(), self.labels()
        network, fixed = at.convnet(), self.initialisation == "fixed"
        steps, pool = self._batches() * self.epochs, self._pool(at, network)

        def objective(adjoint: str):
            learner = student(network, steps=steps, plan=stored_order(at.classes, per_class),
                              adjoint=self.adjoint_of(adjoint, plain=True))
            return unrolled(learner, pool=pool, networks=self.networks,
                            batch_size=at.rows(self.batch_size))

        rate = optax.exponential_decay(self.image_rate, max(1, self.steps // 10), 0.5,
                                       staircase=True)
        return dict(
            objective=self.with_variants(objective)._replace(
                bound="its images belong to steps, in their order"),
            start=with_rate(at.start(), [self.rate] * steps),
            parameterization=pixels(labels=labels["labels"]),
            optimizer=optax.adam(rate, b1=0.5, b2=0.999),
            labels=Labels(labels["kind"]),
            evaluation=at.protocol(
                method_name(type(self)), width=self.width, momentum=0.0, weight_decay=0.0,
                learning_rate=self.rate,
                learned_rate=True, schedule="constant", epochs=self.epochs,
                batch_size=per_class * at.classes, order="stored", loss=labels["loss"],
                start_seed=self.network_seed if fixed else None, seeds=1 if fixed else 5),
        )
