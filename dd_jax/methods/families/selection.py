"""What selections have in common: a budget, what they look at, and a set of unchanged real images.

A selection is a recipe of zero steps. Its set holds the pixels as they are stored, class numbers,
the weights where the selector weighs, and among its notes the rows of the real set in the order in
which they were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.backend import memory_bound
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
from dd_jax.select.looks import feature_width, look_phase
from dd_jax.select.memory import Held, Memory, Phase, nothing, planned
from dd_jax.select.selector import sizes_of, within
from dd_jax.store.artefacts import Artefact
from dd_jax.synthetic import Labels
from dd_jax.types import Objective, RealData

_CHOSEN = "its images are real ones that were chosen"
# Budgets of a method that needs as many images of every class: what `ipc` says, and no other.
_PER_CLASS = {"total": None, "share": None, "within": "class", "short": "refuse"}


def require_per_class(settings: Selection, why: str) -> None:
    """Refuses budgets other than `ipc`.

    Args:
      settings: of a selection.
      why: the method cannot have them.

    Raises:
      ConfigError: as said.
    """
    for name, value in _PER_CLASS.items():
        if (given := getattr(settings, name)) != value:
            raise ConfigError(f"{name} is {given!r}, but {why}",
                              fix=f"pass ipc, and leave {name} as it is, {value!r}")


class Fitted(NamedTuple):
    """A selection whose blocks keep a bound on the device's memory.

    Attributes:
      selector: what chooses.
      held: what the choice holds; None where its selector has not said.
      look: what a look at all images holds; None where there is none.
    """

    selector: Selector
    held: Held | None
    look: Held | None

    @property
    def block(self) -> int | None:
        """Images that are looked at together."""
        return None if self.look is None else self.look.blocks["look"]


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

    def looked(self, at: Site) -> Mapping[str, int]:
        """Fields of `select.memory.Sizes` that say what is looked at."""
        return {}

    def look(self, at: Site) -> Phase | None:
        """What a look at all images holds on the device; networks in training are not counted."""
        return None

    def fitted(self, at: Site) -> Fitted:
        """The selector, and what it holds, with blocks that keep the bound of the site.

        Raises:
          ConfigError: no blocks do.
        """
        if "fitted" not in at.kept:
            bound = memory_bound(at.memory)
            sizes = sizes_of(at.data, self.budget(), **self.looked(at))
            look = self.look(at)
            at.kept["fitted"] = Fitted(
                *within(self.selector(), sizes, bound),
                None if look is None else planned(Memory(nothing, {"look": look}), sizes, bound))
        return at.kept["fitted"]

    def told(self, at: Site) -> str:
        parts = [str(held) for held in self.fitted(at)[:0:-1] if held is not None]
        return f"memory: {'; '.join(parts)}" if parts else ""

    def looks(self, at: Site) -> Mapping[str, Artefact]:
        """What the selector needs."""
        return {}

    def check(self, at: Site) -> None:
        counts_of(self.budget(), at.data)
        self.fitted(at)

    def needs(self, at: Site) -> Mapping[str, Artefact]:
        return {"chosen": chosen(
            method_name(type(self)), self.fitted(at).selector, at.data, self.budget(),
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
        return dict(self.unlearned(at), finalise=finalise, notes=notes,
                    start=rows_start(rows, at.normaliser, kind="classes"))

    def unlearned(self, at: Site) -> dict:
        """Fields of the recipe of a set of classes that no step changes."""
        return dict(
            objective=Objective(lambda synthetic, state, batch, key: (
                0 * jnp.sum(synthetic.images), {}), bound=_CHOSEN, real=False),
            optimizer=optax.set_to_zero(), steps=0, labels=Labels("classes"),
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

    def look(self, at: Site) -> Phase | None:
        return look_phase(at.convnet(), at.data)

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
        return {"features": features(at.convnet(), self.taught(at), at.data, at.whitening,
                                     block=self.fitted(at).block)}

    def looked(self, at: Site) -> Mapping[str, int]:
        if self.features == "pixels":
            return {"width": math.prod(at.spec.shape)}
        return {"width": feature_width(at.convnet(), at.data)}

    def look(self, at: Site) -> Phase | None:
        return None if self.features == "pixels" else super().look(at)


class OfGradients(Observed):
    """Settings of selections by gradients of the last layer of a network trained on the images."""

    def looks(self, at: Site) -> Mapping[str, Artefact]:
        return {"gradients": gradients(at.convnet(), self.taught(at), at.data, at.whitening,
                                       block=self.fitted(at).block)}

    def looked(self, at: Site) -> Mapping[str, int]:
        return {"width": feature_width(at.convnet(), at.data)}


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
            self.recording(at)._replace(block=self.fitted(at).block), at.data,
            networks=self.networks, epochs=self.network_epochs,
            settings=self.training(), normaliser=at.whitening, seed=self.network_seed)

    def looks(self, at: Site) -> Mapping[str, Artefact]:
        return {"dynamics": self.recorded(at)}

    def looked(self, at: Site) -> Mapping[str, int]:
        return {"networks": self.networks, "epochs": self.network_epochs}

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
