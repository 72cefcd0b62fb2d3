"""Transfer: networks pre-trained on a set of representations, tested on a labelled target.

For each seed a fresh network regresses the representations of the set; then, on the real labelled
target, (1) a linear probe is trained on its frozen features, and (2) its head is replaced and all
weights are fine-tuned.

Source: Lee et al., Self-Supervised Dataset Distillation for Transfer Learning, ICLR 2024.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import as_key, in_chunks, map_over, own_dtypes
from dd_jax.data import normalise
from dd_jax.data.normalise import Normaliser
from dd_jax.errors import ConfigError, SetFileError
from dd_jax.evaluate.checks import check_split
from dd_jax.evaluate.evaluate import Evaluation, network_keys, summarise
from dd_jax.evaluate.protocol import Protocol
from dd_jax.evaluate.transfer_steps import (
    TransferBudget,
    backbone,
    chunk,
    fine_tune,
    linear_probe,
    pretrain,
    with_new_head,
)
from dd_jax.types import RealData, Split, SyntheticSet

_NETWORK, _PRETRAIN, _PROBE, _TUNE, _CHOICE = range(2000, 2005)


class TransferResult(NamedTuple):
    """Accuracies on the target's test images; None for a test that was left out.

    Attributes:
      probe: of a linear classifier on frozen features.
      tuned: of the fine-tuned networks.
    """

    probe: Evaluation | None
    tuned: Evaluation | None


@partial(jax.jit, static_argnames=("protocol", "budget", "length", "how"))
def _transfer(keys, sets, target, normaliser, *, protocol, budget, length, how):
    """(probe, tuned) accuracies, one for each key; `sets` is None without pre-training."""
    spec = target.train.spec

    def one(args):
        key, synthetic = args
        if synthetic is None:
            network = backbone(protocol, spec.shape, length)
            variables = network.init(jax.random.fold_in(key, _NETWORK))
        else:
            network, variables = pretrain(protocol, synthetic.images, synthetic.labels,
                                          weights=synthetic.weights,
                                          key=jax.random.fold_in(key, _PRETRAIN))

        def features(stored):
            return in_chunks(
                lambda x: network.apply(variables, normalise(normaliser, x)).features,
                stored, size=chunk(),
            )

        probed = tuned = jnp.zeros(())
        if budget.probe_steps:
            probed = linear_probe(
                features(target.train.images), target.train.labels, features(target.test.images),
                target.test.labels, num_classes=spec.num_classes, budget=budget,
                key=jax.random.fold_in(key, _PROBE),
            )
        if budget.tune_steps:
            width = jax.eval_shape(features, target.test.images[:1]).shape[-1]
            start = with_new_head(network, variables, width=width, num_classes=spec.num_classes)
            tuned = fine_tune(start, target, normaliser=normaliser, budget=budget,
                              key=jax.random.fold_in(key, _TUNE))
        return probed, tuned

    return map_over(one, (keys, sets), how=how)


def _run(keys, sets, target, normaliser, protocol, budget, length, how) -> TransferResult:
    start = time.perf_counter()
    with own_dtypes():
        found = _transfer(keys, sets, target, normaliser, protocol=protocol, budget=budget,
                          length=length, how=how)
    probe, tuned = (summarise(accuracies, start) for accuracies in found)
    return TransferResult(probe if budget.probe_steps else None,
                          tuned if budget.tune_steps else None)


def evaluate_transfer(
    synthetic: SyntheticSet | None,
    target: Split,
    *,
    normaliser: Normaliser,
    protocol: Protocol,
    key: int | jax.Array,
    budget: TransferBudget,
    how: str = "auto",
) -> TransferResult:
    """Pre-trains networks on a set of representations and tests them on a labelled target.

    Args:
      synthetic: images [M, H, W, C] in model space, labels [M, R], and weights [M] or None, such as
        `DistilledSet.trainable()`; None for no pre-training.
      target: real data of the same image shape; any labels.
      normaliser: of the set; the target's images go through it too.
      protocol: architecture and pre-training.
      key: an integer seed or a typed PRNG key; network i uses fold_in(key, i).
      budget: of probe and fine-tuning.
      how: "map" or "vmap" over networks; by backend by default.

    Returns:
      A `TransferResult`.

    Raises:
      SetFileError: the target's images have another shape.
      ConfigError: images of the target that are kept on the host.

    Example:
      >>> from dd_jax import data
      >>> from dd_jax.evaluate import protocol
      >>> part = data.from_arrays(np.arange(64, dtype=np.uint8).reshape(4, 4, 4, 1), [0, 0, 1, 1])
      >>> result = evaluate_transfer(
      ...     SyntheticSet(jnp.ones((2, 4, 4, 1)), jnp.ones((2, 3))), Split(part, part),
      ...     normaliser=data.standardise(part), key=jax.random.key(0),
      ...     protocol=protocol("toy", network="mlp", width=4, epochs=2),
      ...     budget=TransferBudget(probe_steps=2, tune_steps=0, seeds=1))
      >>> result.probe.accuracies.shape
      (1,)
    """
    _check(target, None if synthetic is None else synthetic.images.shape[1:])
    keys = network_keys(as_key(key), budget.seeds)
    length, sets = 1, None
    if synthetic is not None:
        length = synthetic.labels.shape[-1]
        seen = SyntheticSet(*synthetic[:2], weights=synthetic.weights)
        sets = jax.tree.map(lambda x: jnp.broadcast_to(x, (budget.seeds, *jnp.shape(x))), seen)
    return _run(keys, sets, target, normaliser, protocol, budget, length, how)


def evaluate_transfer_random(
    source: RealData,
    draw: Callable[[RealData, jax.Array], SyntheticSet],
    target: Split,
    *,
    normaliser: Normaliser,
    protocol: Protocol,
    key: int | jax.Array,
    budget: TransferBudget,
    how: str = "auto",
) -> TransferResult:
    """The baseline of random real images with the teacher's representations of them.

    Args:
      source: the real set that was distilled.
      draw: (source, key) -> SyntheticSet, another one for each network; the `initialise` of the
        completed recipe draws as many images as it distils.
      target: real labelled data.
      normaliser, protocol, key, budget, how: as for `evaluate_transfer`.

    Returns:
      A `TransferResult`.
    """
    _check(target, source.spec.shape)
    keys = network_keys(as_key(key), budget.seeds)
    sets = [draw(source, jax.random.fold_in(k, _CHOICE)) for k in keys]
    sets = jax.tree.map(lambda *x: jnp.stack(x), *sets)
    return _run(keys, sets, target, normaliser, protocol, budget, sets.labels.shape[-1], how)


def check_transfer(
    target: Split, shape: tuple[int, ...], protocols: Sequence[Protocol]
) -> None:
    """Refuses, before anything is trained, what `evaluate_transfer` would refuse.

    Args:
      target: real labelled data.
      shape: (H, W, C) of the set's images.
      protocols: that it is to be tested by.

    Raises:
      SetFileError: the target's images have another shape.
      ConfigError: images of the target that are kept on the host, or too small for a network.
    """
    _check(target, shape)
    for protocol in protocols:
        backbone(protocol, shape, 1)


def _check(target: Split, shape: tuple[int, ...] | None) -> None:
    check_split(target)
    if shape is not None and tuple(shape) != target.train.spec.shape:
        raise SetFileError(
            f"the set has images of shape {tuple(shape)}, the target {target.train.spec.shape}",
            fix="resize the target's images to the shape of the set's",
        )
    if any(isinstance(part.images, np.ndarray) for part in target):
        raise ConfigError("the target's images live on the host",
                          fix="load the target with device=True")
