"""CCFS: a distilled set, and real images that networks trained on the set so far get wrong.

Chen et al., Curriculum Coarse-to-Fine Selection for High-IPC Dataset Distillation, CVPR 2025. A
share of the budget is distilled images, out of the file `distilled`. The rest are real ones that
join in rounds: of those that a teacher gets right and a network trained on the set so far gets
wrong, the easiest of each class. A class with too few of them has fewer images; the set's notes say
how many places are empty.

The network of a round learns from the teacher, with probabilities at one temperature, on the same
crops; supervision="labels" trains it on hard labels. The set itself has hard labels, and its own
test is that of all selections: for the paper's, pass
`labels.teacher(network, variables, temperature=20.0)` to `evaluate` as its supervision.

Differs from the official code:
  - distilled images are of any method, the first ones of each class in the file (there of CDA);
    without a file random real images take their place, which is a baseline and not the method;
  - teacher and networks are the ConvNets of the settings (there ResNet-18), trained on whole images
    as for all selections here, for as long as `network_epochs` says;
  - difficulty is a score of one recorded training; an image that was never learned counts as
    forgotten in every epoch. Scores of consistency are not offered;
  - at least one image of each class is distilled; the batch grows with the set's share of the real
    images (there with its size, by tables that say the same for CIFAR-10 and CIFAR-100).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np

from dd_jax.augment.block import crop_flip_roll
from dd_jax.data import denormalise
from dd_jax.data.conventions import DIGITS, known_as
from dd_jax.distill.curriculum_needs import Coarse, curriculum, first_images, first_labels
from dd_jax.distill.selection_needs import chosen, logits
from dd_jax.errors import ConfigError, DataError
from dd_jax.methods.families.selection import Recorded, require_per_class
from dd_jax.methods.frame import Rate, Seed, Share, Site, Whole, one_of
from dd_jax.methods.frame.fields import above_zero
from dd_jax.select import Budget, Selector, selectors
from dd_jax.select.curriculum import (
    NONE,
    Filter,
    batch_size_of,
    in_model_space,
    round_sizes,
    warmed_up,
)
from dd_jax.select.dynamic_scores import SCORES, check_epochs, of_dynamics
from dd_jax.select.memory import NUMBER, shown
from dd_jax.store import load
from dd_jax.store.artefacts import Artefact
from dd_jax.synthetic import targets
from dd_jax.types import RealData, SyntheticSet


class CCFS(Recorded):
    """Settings of CCFS, those in `Recorded`, of which budgets other than `ipc` are refused.

    Attributes:
      distilled: file of a distilled set of the same data; None: random real images in its place.
      distilled_share: alpha, of the budget.
      rounds: in which real images join.
      difficulty: a name in `select.dynamic_scores.SCORES`; the easiest images join first.
      supervision: networks of the rounds learn from the "teacher" or from "labels".
      temperature: of the teacher's and the networks' probabilities.
      area: smallest crop that networks of the rounds see.
      filter_epochs, filter_rate, filter_decay: of their SGD with momentum of 0.9.
      filter_warmup: epochs in which the rate rises, before it falls to 0 by a cosine.
      filter_batch_size: of them; None: 32, 64 or 128, by the set's share of the real images.
      filter_seed: of their training.
    """

    distilled: str | None = None
    distilled_share: Share = 0.2
    rounds: Whole = 3
    difficulty: Annotated[str, one_of(SCORES)] = "forgetting"
    supervision: Annotated[str, one_of(("teacher", "labels"))] = "teacher"
    temperature: Annotated[float, above_zero("logits are divided by it", 20.0)] = 20.0
    area: Share = 0.08
    filter_epochs: Whole = 500
    filter_batch_size: Whole | None = None
    filter_rate: Rate = 0.2
    filter_decay: Rate = 1e-4
    filter_warmup: Whole = 5
    filter_seed: Seed = 0
    networks: Whole = 1
    network_epochs: Whole = 200

    presets = {
        "official": {},
        "cpu": {0: dict(width=32, evaluation_width=32, evaluation_epochs=None, network_epochs=4,
                        filter_epochs=20)},
    }
    for_data = {
        "cifar10": {250: dict(distilled_share=0.2), 500: dict(distilled_share=0.1),
                    1000: dict(distilled_share=0.3, filter_epochs=250),
                    1500: dict(distilled_share=0.3, filter_epochs=200)},
        "cifar100": {25: dict(distilled_share=0.2), 50: dict(distilled_share=0.1),
                     100: dict(distilled_share=0.1, filter_epochs=250),
                     150: dict(distilled_share=0.2, filter_epochs=200)},
        "tiny_imagenet": {50: dict(filter_epochs=100, filter_batch_size=64)},
    }

    def coarse_count(self) -> int:
        """Distilled images of each class."""
        return max(1, math.floor(self.distilled_share * self.ipc + 1e-9))

    def sizes(self) -> list[int]:
        """Real images of each class that join, round by round."""
        return round_sizes(self.ipc - self.coarse_count(), self.rounds)

    def budget(self) -> Budget:
        require_per_class(self, "every class has as many distilled images")
        return Budget(self.ipc)

    def selector(self) -> Selector:
        return of_dynamics(self.difficulty, order="bottom")

    def told(self, at: Site) -> str:
        images = self.ipc * at.classes
        return f"{super().told(at)}; the set {shown(NUMBER * images * math.prod(at.spec.shape))}"

    def check(self, at: Site) -> None:
        super().check(at)
        check_epochs(self.difficulty, self.network_epochs)
        self._coarse(at), self._filter(at)

    def _coarse(self, at: Site) -> Artefact:
        """What the rounds begin with; read once."""
        if "coarse" not in at.kept:
            at.kept["coarse"] = self._random(at) if self.distilled is None else self._read(at)
        return at.kept["coarse"]

    def _random(self, at: Site) -> Artefact:
        return chosen("random", selectors.random(), at.data, Budget(self.coarse_count()),
                      settings={}, seed=self.choice_seed, needs={"normaliser": at.whitening})

    def _read(self, at: Site) -> Artefact:
        """The first distilled images of each class in the file.

        Raises:
          SetFileError: no such file.
          ConfigError: a set of other data, or of images whose pixels are not known.
          DataError: a class with too few of them.
        """
        found, count = load(self.distilled), self.coarse_count()
        if (found.spec.shape, found.spec.class_names) != (at.spec.shape, at.spec.class_names):
            raise ConfigError(f"{self.distilled} was distilled from {found.spec.name}, which has "
                              f"other images or classes than {at.spec.name}",
                              fix="name a set that was distilled from this data")
        labels = found.hard_labels
        if labels is None or found.normaliser.per_image:
            raise ConfigError(
                f"{self.distilled} holds {'representations' if labels is None else 'images'} "
                "whose " + ("classes" if labels is None else "own brightness") + " is not known",
                fix="distil a set with labels of classes, by a normaliser of the whole set")
        rows = [np.flatnonzero(labels == label)[:count] for label in range(at.classes)]
        short = min(range(at.classes), key=lambda label: len(rows[label]))
        if len(rows[short]) < count:
            raise DataError(f"{self.distilled} has {len(rows[short])} images of class {short}, "
                            f"expected at least {count}",
                            fix="pass a smaller distilled_share, or distil more images")
        rows = np.concatenate(rows)
        images = np.asarray(denormalise(found.normaliser, found.trainable().images[rows]))
        coarse = Coarse(images, labels[rows])
        told = hashlib.sha256(images.tobytes() + coarse.labels.tobytes()).hexdigest()
        return Artefact("distilled", {"sha256": told}, value=coarse)

    def _flips(self, at: Site) -> bool:
        return known_as(at.spec.name) not in DIGITS if self.flips is None else self.flips

    def _filter(self, at: Site) -> Filter:
        """How networks of the rounds are trained."""
        total = len(at.data.labels)
        return Filter(
            at.convnet(), warmed_up(self.filter_rate, self.filter_decay, self.filter_warmup),
            self.filter_epochs,
            lambda images: self.filter_batch_size or batch_size_of(images, total),
            crop_flip_roll(at.spec.shape, area=self.area, flip=self._flips(at)),
            self.temperature if self.supervision == "teacher" else None)

    def needs(self, at: Site) -> Mapping[str, Artefact]:
        coarse = {"coarse": self._coarse(at)}
        if not self.sizes():
            return coarse
        by, block = self._filter(at), self.fitted(at).block
        taught = self.taught(at)
        said = logits(by.network, taught, at.data, at.whitening, block=block)
        settings = dict(rate=self.filter_rate, decay=self.filter_decay, area=self.area,
                        warmup=self.filter_warmup, flip=self._flips(at),
                        batch_size=self.filter_batch_size)
        return {**coarse, "curriculum": curriculum(
            by, at.data, sizes=self.sizes(), difficulty=self.difficulty, settings=settings,
            seed=self.filter_seed, block=block,
            needs={"normaliser": at.whitening, "teacher": taught, "logits": said,
                   "dynamics": self.recorded(at), **coarse})}

    def build(self, at: Site) -> dict[str, Any]:
        places = np.asarray(at.have.get("curriculum", np.zeros((at.classes, 0), np.int32)))
        first, rows = at.have["coarse"], places[places != NONE]
        known = np.asarray(at.data.labels)
        labels = np.concatenate([first_labels(first, known), known[rows]])
        order = np.argsort(labels, kind="stable")  # class by class, distilled images first
        each = 4 * math.prod(at.spec.shape) + 4
        notes = {"rows": rows.tolist(), "ipc": len(labels) / at.classes,
                 "empty_places": int((places == NONE).sum()), "stored_bytes": len(labels) * each}

        def start(data: RealData, key) -> SyntheticSet:
            parts = (first_images(first, data, at.normaliser),
                     in_model_space(data, rows, at.normaliser))
            images = jnp.concatenate([jnp.asarray(part) for part in parts])
            return SyntheticSet(images[order], targets(
                jnp.asarray(labels[order]), at.classes, kind="classes"))

        return {**self.unlearned(at), "start": start, "notes": notes}
