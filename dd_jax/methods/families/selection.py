"""What selections have in common: a budget, what they look at, and a set of unchanged real images.

A selection is a recipe of zero steps. Its set holds the pixels as they are stored, class numbers,
the weights where the selector weighs, and among its notes the rows of the real set in the order in
which they were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.data import gather
from dd_jax.distill.needs import teacher
from dd_jax.distill.selection_needs import chosen, dynamics, features, gradients
from dd_jax.errors import ConfigError
from dd_jax.methods.frame import (
    ConvNets,
    Normalisation,
    Rate,
    Seed,
    Site,
    Tested,
    Views,
    Whole,
    one_of,
)
from dd_jax.methods.frame.selected import rows_start
from dd_jax.methods.frame.settings import method_name
from dd_jax.select import OF_FEATURES, ORDERS, Budget, Selector, counts_of
from dd_jax.select.budget import SHORT, WITHIN
from dd_jax.select.dynamic_scores import check_epochs, of_dynamics
from dd_jax.select.dynamics import Recording
from dd_jax.store.artefacts import Artefact
from dd_jax.synthetic import Labels
from dd_jax.types import Objective, RealData

_CHOSEN = "its images are real ones that were chosen"


class Selection(Tested):
    """Settings of every selection; networks are tested as in DC.

    Attributes:
      total: images of all classes together, in the place of `ipc` for each.
      share: of every class, in (0, 1], in the place of `ipc`.
      within: "class", or "set": images compete for all places, and classes have any number.
      short: where a class has fewer images than it is asked for: "refuse", "fewer" (all that it
        has) or "others" (the missing ones are of other classes).
      choice_seed: of what a selector draws, whatever the run's seed is.
      normaliser: a name in `data.normalisers`.
    """

    total: Whole | None = None
    share: float | None = None
    within: Annotated[str, one_of(WITHIN)] = "class"
    short: Annotated[str, one_of(SHORT)] = "refuse"
    choice_seed: Seed = 0
    normaliser: Normalisation = "published"
    augmentation: Views = "none"
    evaluation_epochs: Whole | None = 301

    def budget(self) -> Budget:
        """As `select` takes it."""
        ipc = self.ipc if self.total is None and self.share is None else None
        return Budget(ipc, self.total, self.share, self.within, self.short)

    def images_per_class(self, data: RealData) -> float:
        size, classes = int(counts_of(self.budget(), data).sum()), data.spec.num_classes
        return size // classes if size % classes == 0 else size / classes

    def selector(self) -> Selector:
        """What chooses."""
        raise NotImplementedError

    def shaping(self) -> Mapping[str, Any]:
        """Settings that shape the choice, beside the budget and what is looked at."""
        return {}

    def looks(self, at: Site) -> Mapping[str, Artefact]:
        """What the selector needs."""
        return {}

    def check(self, at: Site) -> None:
        counts_of(self.budget(), at.data)
        self.selector()

    def needs(self, at: Site) -> Mapping[str, Artefact]:
        return {"chosen": chosen(
            method_name(type(self)), self.selector(), at.data, self.budget(),
            settings=self.shaping(), seed=self.choice_seed,
            needs={"normaliser": at.whitening, **self.looks(at)})}

    def build(self, at: Site) -> dict:
        rows, weights = (np.asarray(part) for part in at.have["chosen"])
        weighted = bool((weights != 1).any())

        def finalise(synthetic, data: RealData, key):
            if data.images.dtype == jnp.uint8:
                synthetic = synthetic._replace(images=gather(data, rows)[0])
            return synthetic._replace(weights=weights) if weighted else synthetic

        notes = {"rows": rows.tolist(), "ipc": float(self.images_per_class(at.data))}
        if at.data.images.dtype == jnp.uint8:  # a byte a value, a class number, perhaps a weight
            each = math.prod(at.spec.shape) + (8 if weighted else 4)
            notes["stored_bytes"] = len(rows) * each
        return dict(
            objective=Objective(lambda synthetic, state, batch, key: (
                0 * jnp.sum(synthetic.images), {}), bound=_CHOSEN, real=False),
            optimizer=optax.set_to_zero(), steps=0, finalise=finalise, labels=Labels("classes"),
            start=rows_start(rows, at.normaliser, kind="classes"),
            notes=notes,
            evaluation=at.protocol("dc"))


class Observed(Selection, ConvNets):
    """Settings of selections that look through networks trained on the real images.

    Attributes:
      network_epochs, network_batch_size, network_rate, network_decay: of their SGD with Nesterov's
        momentum of 0.9, whose rate falls to 0 by a cosine.
      network_seed: of their training.
    """

    network_epochs: Whole = 10
    network_batch_size: Whole = 256
    network_rate: Rate = 0.1
    network_decay: Rate = 5e-4
    network_seed: Seed = 0

    # Of the authors of the collection DeepCore, and narrow networks for a CPU.
    presets = {
        "official": {},
        "cpu": {0: dict(width=32, evaluation_width=32, evaluation_epochs=None, network_epochs=3)},
    }

    def recording(self, at: Site) -> Recording:
        """How a network is trained."""
        size = at.rows(self.network_batch_size)
        steps = self.network_epochs * -(-len(at.data.labels) // size)
        rate = optax.cosine_decay_schedule(self.network_rate, steps)
        sgd = optax.chain(optax.add_decayed_weights(self.network_decay),
                          optax.sgd(rate, momentum=0.9, nesterov=True))
        return Recording(at.convnet(), sgd, size)

    def training(self) -> dict[str, Any]:
        """What tells these networks from others of their architecture."""
        return dict(epochs=self.network_epochs, batch_size=self.network_batch_size,
                    rate=self.network_rate, decay=self.network_decay, training="selection")

    def taught(self, at: Site) -> Artefact:
        """One network so trained, shared by all that look through it."""
        recording = self.recording(at)

        def train(data, key, normaliser):
            return recording.train(data, normaliser, key, self.network_epochs)

        return teacher(recording.network, train, settings=self.training(),
                       normaliser=at.whitening, seed=self.network_seed)


class OfFeatures(Observed):
    """Settings of selections by features.

    Attributes:
      features: of a "network" that was trained on the real images, or the "pixels".
    """

    features: Annotated[str, one_of(("network", "pixels"))] = "network"

    def selector(self) -> Selector:
        return OF_FEATURES[method_name(type(self))]()

    def looks(self, at: Site) -> Mapping[str, Artefact]:
        if self.features == "pixels":
            return {}
        return {"features": features(at.convnet(), self.taught(at), at.data, at.whitening)}


class OfGradients(Observed):
    """Settings of selections by gradients of the last layer of a network trained on the images."""

    def looks(self, at: Site) -> Mapping[str, Artefact]:
        return {"gradients": gradients(at.convnet(), self.taught(at), at.data, at.whitening)}


class Recorded(Observed):
    """Settings of selections by what several networks say after each epoch of their training.

    Attributes:
      networks: trained together, over which the mean is taken.
    """

    networks: Whole = 10

    presets = {
        "official": {},
        "cpu": {0: dict(width=32, evaluation_width=32, evaluation_epochs=None, network_epochs=4,
                        networks=3)},
    }

    def recorded(self, at: Site) -> Artefact:
        """The dynamics, shared by all that look at them."""
        return dynamics(
            self.recording(at), at.data, networks=self.networks, epochs=self.network_epochs,
            settings=self.training(), normaliser=at.whitening, seed=self.network_seed)

    def looks(self, at: Site) -> Mapping[str, Artefact]:
        return {"dynamics": self.recorded(at)}

    def check_until(self, until: int | None) -> None:
        """Refuses more epochs than there are.

        Raises:
          ConfigError: as said.
        """
        if until is not None and until > self.network_epochs:
            raise ConfigError(f"until is {until}, and networks are trained for "
                              f"{self.network_epochs} epochs",
                              fix=f"pass until={self.network_epochs} or more network_epochs")


class OfDynamics(Recorded):
    """Settings of selections by scores of training dynamics.

    Attributes:
      until: scores look at the first epochs only; None: at all.
      order: "top" takes the hardest images, "bottom" the easiest, "middle" a window between.
    """

    until: Whole | None = None
    order: Annotated[str, one_of(ORDERS)] = "top"

    def score(self) -> str:
        """A name in `select.dynamic_scores.SCORES`."""
        return method_name(type(self))

    def shaping(self) -> Mapping[str, Any]:
        return dict(score=self.score(), order=self.order, until=self.until)

    def selector(self) -> Selector:
        return of_dynamics(self.score(), order=self.order, until=self.until)

    def check(self, at: Site) -> None:
        super().check(at)
        self.check_until(self.until)
        check_epochs(self.score(), self.until or self.network_epochs)
