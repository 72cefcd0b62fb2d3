"""The kinds of artefacts of selections: features, gradients, dynamics, chosen rows and weights.

Features, gradients and dynamics know no selector, so all selectors share them; what one chose for
a budget is an artefact, too: runs of one selection, and distillations that start from it, choose
once.
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
from dd_jax.select.dynamics import Recording
from dd_jax.select.gradients import LastLayer, like_gradients, network_gradients
from dd_jax.select.looks import feature_width, network_features, pixel_features
from dd_jax.select.reweighting import learned_weights
from dd_jax.store.artefacts import Artefact
from dd_jax.types import Network, PyTree, RealData


def features(network: Network, teacher: Artefact, data: RealData, normaliser: Artefact) -> Artefact:
    """Features of all real images by a trained network, [N, P] float32 on the host.

    Args:
      network: the architecture.
      teacher: its variables, see `needs.teacher`.
      data: the real set.
      normaliser: that images go through.
    """
    def compute(data: RealData, key: jax.Array, normaliser: Normaliser, teacher: PyTree):
        return network_features(network, teacher, data, normaliser)

    def like():
        return jax.ShapeDtypeStruct((len(data.labels), feature_width(network, data)), np.float32)

    return arrays("features", architecture(network), compute, like, device=False,
                  needs={"normaliser": normaliser, "teacher": teacher})


def gradients(
    network: Network, teacher: Artefact, data: RealData, normaliser: Artefact
) -> Artefact:
    """Gradients of the last layer of a trained network, of all real images, by their factors.

    Args:
      network, teacher, data, normaliser: as for `features`.

    Returns:
      An `Artefact` that opens as `LastLayer`, N (K + P) float32 numbers on the host.
    """
    def compute(data: RealData, key: jax.Array, normaliser: Normaliser, teacher: PyTree):
        return network_gradients(network, teacher, data, normaliser)

    def like() -> LastLayer:
        return like_gradients(len(data.labels), data.spec.num_classes,
                              feature_width(network, data))

    return arrays("gradients", architecture(network), compute, like, device=False,
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
