"""The kinds of artefacts of selections: looks at all images, dynamics, chosen rows and weights.

Looks and dynamics know no selector, so all selectors share them; what one chose for a budget is an
artefact, too: runs of one selection, and distillations that start from it, choose once.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from dd_jax.data import Normaliser
from dd_jax.distill.needs import architecture, arrays
from dd_jax.run.dynamics import like_dynamics, open_dynamics, record_dynamics
from dd_jax.select import Budget, Chosen, MetaWeights, Selector, counts_of, select
from dd_jax.select.archaeology import Probed
from dd_jax.select.boundary import Boundary, boundaries
from dd_jax.select.dynamics import Recording
from dd_jax.select.gradients import LastLayer, like_gradients, network_gradients
from dd_jax.select.looks import (
    feature_width,
    network_features,
    network_logits,
    pixel_features,
)
from dd_jax.select.probes import NONE, SUITES, Probes, chosen_probes, planted
from dd_jax.select.reweighting import learned_weights
from dd_jax.store.arrays import read_arrays, write_arrays
from dd_jax.store.artefacts import Artefact
from dd_jax.types import Network, PyTree, RealData

_PROBES = "probes.safetensors"


def features(
    network: Network, teacher: Artefact, data: RealData, normaliser: Artefact, *,
    block: int | None = None,
) -> Artefact:
    """Features of all real images by a trained network, [N, P] float32 on the host.

    Args:
      network: the architecture.
      teacher: its variables, see `needs.teacher`.
      data: the real set.
      normaliser: that images go through.
      block: images that are looked at together, no part of what it is; None: see
        `select.looks.block_rows`.
    """
    def compute(data: RealData, key: jax.Array, normaliser: Normaliser, teacher: PyTree):
        return network_features(network, teacher, data, normaliser, block=block)

    def like():
        return jax.ShapeDtypeStruct((len(data.labels), feature_width(network, data)), np.float32)

    return arrays("features", architecture(network), compute, like, device=False,
                  needs={"normaliser": normaliser, "teacher": teacher})


def gradients(
    network: Network, teacher: Artefact, data: RealData, normaliser: Artefact, *,
    block: int | None = None,
) -> Artefact:
    """Gradients of the last layer of a trained network, of all real images, by their factors.

    Args:
      network, teacher, data, normaliser, block: as for `features`.

    Returns:
      An `Artefact` that opens as `LastLayer`, N (K + P) float32 numbers on the host.
    """
    def compute(data: RealData, key: jax.Array, normaliser: Normaliser, teacher: PyTree):
        return network_gradients(network, teacher, data, normaliser, block=block)

    def like() -> LastLayer:
        return like_gradients(len(data.labels), data.spec.num_classes,
                              feature_width(network, data))

    return arrays("gradients", architecture(network), compute, like, device=False,
                  needs={"normaliser": normaliser, "teacher": teacher})


def logits(
    network: Network, teacher: Artefact, data: RealData, normaliser: Artefact, *,
    block: int | None = None,
) -> Artefact:
    """Logits of all real images by a trained network, [N, K] float32; as `features`."""
    def compute(data: RealData, key: jax.Array, normaliser: Normaliser, teacher: PyTree):
        return network_logits(network, teacher, data, normaliser, block=block)

    def like():
        return jax.ShapeDtypeStruct((len(data.labels), data.spec.num_classes), np.float32)

    return arrays("logits", architecture(network), compute, like, device=False,
                  needs={"normaliser": normaliser, "teacher": teacher})


def boundary(
    network: Network, teacher: Artefact, data: RealData, normaliser: Artefact, *, steps: int,
    overshoot: float, block: int | None = None,
) -> Artefact:
    """How far all real images are from the boundary of a trained network, `Boundary` on the host.

    Args:
      network, teacher, data, normaliser, block: as for `features`.
      steps, overshoot: as for `select.boundary.to_boundary`.
    """
    shaping = dict(steps=steps, overshoot=overshoot)

    def compute(data: RealData, key: jax.Array, normaliser: Normaliser, teacher: PyTree):
        return boundaries(network, teacher, data, normaliser, block=block, **shaping)

    def like() -> Boundary:
        size = (len(data.labels),)
        return Boundary(jax.ShapeDtypeStruct(size, np.float32), jax.ShapeDtypeStruct(size, bool))

    return arrays("boundary", {**architecture(network), **shaping}, compute, like, device=False,
                  needs={"normaliser": normaliser, "teacher": teacher})


def dynamics(
    recording: Recording, data: RealData, *, networks: int, epochs: int,
    settings: Mapping[str, Any], normaliser: Artefact, seed: int = 0,
) -> Artefact:
    """What several networks say of all real images after each epoch of their training.

    Args:
      recording: how they are trained.
      data: the real set.
      networks, epochs: S and E.
      settings: JSON-able; what of `recording` shapes the training, beside architecture and batch
        size.
      normaliser: that images go through.
      seed: of the training.

    Returns:
      An `Artefact` that opens as `Dynamics` [S, E, N] on the host; a recording that was killed goes
      on after its last epoch.
    """
    sizes = dict(networks=networks, epochs=epochs)

    def make(data: RealData, key: jax.Array, folder: pathlib.Path, have, show_progress=None):
        record_dynamics(folder, recording, data, **sizes, normaliser=have["normaliser"], key=key,
                        show_progress=show_progress)

    def stand_in():
        like = like_dynamics(networks, epochs, len(data.labels))
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)

    told = {**architecture(recording.network), **sizes, "batch_size": recording.batch_size}
    if recording.gradient != "last_layer":
        told["gradient"] = recording.gradient
    return Artefact("dynamics", {**told, **settings}, make,
                    lambda folder: open_dynamics(folder, **sizes, images=len(data.labels)),
                    needs={"normaliser": normaliser}, seed=seed, stand_in=stand_in)


def probed(
    recording: Recording, data: RealData, *, suites: int, size: int, noise: float, epochs: int,
    first: Artefact, settings: Mapping[str, Any], normaliser: Artefact, seed: int = 0,
) -> Artefact:
    """The losses of all images and of probes among them, after each epoch of one training.

    Args:
      recording, data, epochs, settings, normaliser, seed: as for `dynamics`.
      suites: how many of `select.probes.SUITES`.
      size: probes of each half of a suite.
      noise: of corrupted probes, see `select.probes.planted`.
      first: the `dynamics` that tell which images are typical.

    Returns:
      An `Artefact` that opens as `Probed` on the host.
    """
    like = Probes(jax.ShapeDtypeStruct((len(data.labels),), np.int32),
                  jax.ShapeDtypeStruct((len(data.labels),), bool))

    def make(data: RealData, key: jax.Array, folder: pathlib.Path, have, show_progress=None):
        chosen_key, planted_key, training_key = (jax.random.fold_in(key, i) for i in range(3))
        probes = chosen_probes(have["dynamics"], size, suites, chosen_key)
        write_arrays(folder / _PROBES, probes, {"kind": "probes"})
        record_dynamics(folder, recording, planted(data, probes, planted_key, noise=noise),
                        networks=1, epochs=epochs, normaliser=have["normaliser"], key=training_key,
                        show_progress=show_progress)

    def opened(folder: pathlib.Path) -> Probed:
        seen = open_dynamics(folder, networks=1, epochs=epochs, images=len(data.labels))
        return Probed(seen.loss[0], read_arrays(folder / _PROBES, like))

    def stand_in() -> Probed:
        place = np.arange(len(data.labels))
        suite = np.where(place < 4 * suites, place % suites, NONE).astype(np.int32)
        return Probed(np.zeros((epochs, len(place)), np.float32), Probes(suite, place < 2 * suites))

    told = {**architecture(recording.network), "epochs": epochs, "size": size, "noise": noise,
            "suites": SUITES[:suites], "batch_size": recording.batch_size}
    return Artefact("probed", {**told, **settings}, make, opened,
                    needs={"normaliser": normaliser, "dynamics": first}, seed=seed,
                    stand_in=stand_in)


def chosen(
    name: str, selector: Selector, data: RealData, budget: Budget, *, settings: Mapping[str, Any],
    needs: Mapping[str, Artefact], seed: int = 0,
) -> Artefact:
    """The rows that a selector chooses for a budget.

    Args:
      name: of the selector.
      selector: that chooses.
      data: the real set.
      budget: how many.
      settings: JSON-able; what of the selector shapes the choice.
      needs: what it needs, and the "normaliser". Without "features" a selector that looks at
        features has the pixels in model space.
      seed: of the choice.

    Returns:
      An `Artefact` that opens as `Chosen`, NumPy arrays.

    Raises:
      ConfigError, DataError: a budget that cannot be.
    """
    def compute(data: RealData, key: jax.Array, normaliser: Normaliser, **have: Any) -> Chosen:
        if "features" in selector.needs and "features" not in have:
            have["features"] = pixel_features(data, normaliser)
        return select(selector, data, have, budget, key=key)

    told = {"selector": name, **budget._asdict(), **settings}
    return arrays("selection", told, compute, _like_chosen(data, budget), needs=needs, seed=seed,
                  device=False)


def reweighted(
    by: MetaWeights, coreset: Artefact, data: RealData, budget: Budget, normaliser: Artefact, *,
    steps: int, settings: Mapping[str, Any], seed: int = 0,
) -> Artefact:
    """A coreset with weights that were learned on it, see `select.reweighting`.

    Args:
      by: how they are learned.
      coreset: the chosen rows, see `chosen`.
      data: the real set.
      budget: of the coreset.
      normaliser: that images go through.
      steps: of the learning.
      settings: JSON-able; what of `by` shapes it, beside architecture, batch size and width.
      seed: of the learning.

    Returns:
      An `Artefact` that opens as `Chosen`, NumPy arrays, weights of mean 1.
    """
    def compute(data: RealData, key: jax.Array, normaliser: Normaliser, chosen: Chosen) -> Chosen:
        weights = learned_weights(by, data, chosen.rows, normaliser, steps=steps, key=key)
        return Chosen(np.asarray(chosen.rows), weights)

    told = {**architecture(by.network), "batch_size": by.batch_size, "width": by.width,
            "steps": steps}
    return arrays("weights", {**told, **settings}, compute, _like_chosen(data, budget),
                  needs={"normaliser": normaliser, "chosen": coreset}, seed=seed, device=False)


def _like_chosen(data: RealData, budget: Budget) -> Callable[[], Chosen]:
    size = int(counts_of(budget, data).sum())
    return lambda: Chosen(jax.ShapeDtypeStruct((size,), np.int32),
                          jax.ShapeDtypeStruct((size,), np.float32))
