"""Training stage after stage on growing sets, and the test of a set that was made for it.

A network is trained on S_1, then from where it stands on S_1 + S_2, and so on, at each stage's own
rate.

Source: Chen et al., Data Distillation Can Be Like Vodka: Distilling More Times For Better Quality,
ICLR 2024.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax import augment
from dd_jax.backend import as_key, own_dtypes
from dd_jax.errors import SetFileError, require_whole
from dd_jax.evaluate.build import build_network
from dd_jax.evaluate.checks import check_seeds, check_set, check_testable, own_protocol
from dd_jax.evaluate.evaluate import (
    Evaluation,
    at_own_rate,
    evaluate,
    network_keys,
    one_rate,
    summarise,
    test_accuracy,
)
from dd_jax.evaluate.protocol import Protocol
from dd_jax.evaluate.replayed import refuse_replay
from dd_jax.evaluate.supervision import supervision_of
from dd_jax.evaluate.train import train
from dd_jax.labels.supervision import Supervision, Views
from dd_jax.store import DistilledSet
from dd_jax.synthetic.joined import stage_rows, stage_sets
from dd_jax.train.fit import rows_of
from dd_jax.types import Network, PyTree, RealData, SyntheticSet


def equal_budget(epochs: int, stages: int) -> int:
    """Epochs of each stage for as many image passes as `epochs` on the whole set take.

      sum_p e p M / P = epochs M   for   e = 2 epochs / (P + 1)

    Example:
      >>> equal_budget(1000, 5)
      333
    """
    return max(1, round(2 * epochs / (stages + 1)))


def trained_on(
    network: Network,
    sets: Sequence[SyntheticSet],
    protocol: Protocol,
    *,
    supervision: Sequence[Supervision],
    shape: tuple,
) -> Network:
    """The network whose initial parameters have been trained on the sets, one after another.

    Each stage is a whole run of the protocol: its own rate and schedule, momentum from zero.

    Args:
      network: the architecture.
      sets: in order; images in model space, labels [M, K].
      protocol: with the epochs of one stage.
      supervision: what networks are told on each of them.
      shape: (H, W, C).

    Returns:
      A `Network` that differs in `init` only, which now is a training.
    """
    for synthetic, told in zip(sets, supervision):
        network = _after(network, synthetic, protocol, told, shape)
    return network


def _after(network, synthetic, protocol: Protocol, told: Supervision, shape: tuple) -> Network:
    if protocol.optimizer.learned_rate and synthetic.learning_rate is not None:
        protocol = protocol.varied(learning_rate=one_rate(synthetic.learning_rate))

    images, labels = jnp.asarray(synthetic.images), jnp.asarray(synthetic.labels)

    def init(key: jax.Array) -> PyTree:
        return train(
            network, protocol, size=images.shape[0], supervision=told, key=key,
            weights=synthetic.weights,
            take=rows_of(images, labels), epochs=protocol.plan.epochs,
            batch_size=protocol.plan.batch_size,
            augmentation=augment.by_name(protocol.views.augmentation, shape),
        )

    return network._replace(init=init)


@dataclasses.dataclass(frozen=True)
class _StageTargets:
    """Targets of a stage, asked for by rows of the whole set; the arrays begin with these rows."""

    targets: Callable

    def __call__(self, arrays: PyTree, views: Views) -> PyTree:
        rows, arrays = arrays
        return self.targets(arrays, views._replace(rows=rows[views.rows]))


def _of_stage(told: Supervision, rows: np.ndarray) -> Supervision:
    return Supervision(_StageTargets(told.targets), told.loss, (jnp.asarray(rows), told.arrays))


def _stages(distilled: DistilledSet, asked: int | None) -> int:
    """In how many stages a set is trained on: as asked, or as its recipe notes."""
    if asked is not None:
        require_whole("stages", asked, example=5)
        return asked
    noted = distilled.recipe.get("stages", 1)
    if isinstance(noted, bool) or not isinstance(noted, (int, np.integer)) or noted < 1:
        raise SetFileError(f"the set's recipe notes the stages {str(noted)[:60]!r}, expected a "
                           "whole number of at least 1",
                           fix="pass the number of stages it was made in")
    return int(noted)


def check(
    distilled: DistilledSet,
    test: RealData,
    *,
    protocol: Protocol,
    stages: int | None = None,
    labels: bool = True,
) -> None:
    """Refuses, before anything is trained, what `evaluate_progressive` would refuse.

    Args:
      distilled, test, protocol, stages: as there.
      labels: whether networks are told what the set teaches, and no other supervision.

    Raises:
      SetFileError: test data of another kind, or images that the stages cannot share.
      ConfigError, DataError: as `check_testable`; or learned rates that the protocol cannot follow.
    """
    check_set(distilled)
    stages = _stages(distilled, stages)
    check_testable(distilled, test, protocol, labels=labels)
    count, classes = distilled.synthetic.images.shape[0], distilled.spec.num_classes
    if stages == 1:
        at_own_rate(protocol, distilled.synthetic)
    elif count % (classes * stages):
        raise SetFileError(f"the set has {count} images, which {stages} stages of {classes} "
                           "classes cannot share", fix="pass the number of stages it was made in")


@own_dtypes()
def evaluate_progressive(
    distilled: DistilledSet,
    test: RealData,
    *,
    protocol: Protocol | None = None,
    key: int | jax.Array = 1,
    supervision: Supervision | None = None,
    stages: int | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
) -> Evaluation:
    """Accuracy of fresh networks that are trained stage by stage.

    Args:
      distilled: a set of `stages` blocks, as `distill.progressive` makes it.
      test: real test data.
      protocol: of every stage; the set's own by default.
      key: an integer seed or a typed PRNG key; network i uses fold_in(key, i).
      supervision: as for `evaluate`; rows are those of the whole set in every stage.
      stages: P; by default as many as the set was made in. 1 is `evaluate`.
      epochs: of each stage; by default as many as make the image passes of `protocol.plan.epochs`
        on the whole set.
      seeds: number of networks; the protocol's by default.

    Returns:
      An `Evaluation`.

    Raises:
      SetFileError: test data of another kind, or images that the stages cannot share.
    """
    check_set(distilled)
    check_seeds(seeds)
    protocol = own_protocol(distilled) if protocol is None else protocol
    key = as_key(key)
    stages = _stages(distilled, stages)
    if stages == 1:
        return evaluate(distilled, test, protocol=protocol, key=key, seeds=seeds,
                        supervision=supervision)
    refuse_replay(supervision)
    check(distilled, test, protocol=protocol, stages=stages, labels=supervision is None)
    start = time.perf_counter()
    epochs = epochs or equal_budget(protocol.plan.epochs, stages)
    protocol = protocol.varied(epochs=epochs)
    told, whole = supervision or supervision_of(distilled, protocol), distilled.trainable()
    rows = stage_rows(whole.images.shape[0], stages, distilled.spec.num_classes)
    network = trained_on(
        build_network(protocol, distilled.spec),
        stage_sets(whole, stages, distilled.spec.num_classes), protocol,
        supervision=[_of_stage(told, r) for r in rows], shape=distilled.spec.shape)

    @jax.jit
    def accuracies(keys, test, normaliser):
        def one(key):
            return test_accuracy(network, network.init(key), test, normaliser)

        return jax.lax.map(one, keys)

    keys = network_keys(key, seeds or protocol.seeds)
    return summarise(accuracies(keys, test, distilled.normaliser), start)
