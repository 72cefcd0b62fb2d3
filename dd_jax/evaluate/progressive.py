"""Training stage after stage on growing sets, and the test of a set that was made for it.

A network is trained on S_1, then from where it stands on S_1 + S_2, and so on, at each stage's own
rate.

Source: Chen et al., Data Distillation Can Be Like Vodka: Distilling More Times For Better Quality,
ICLR 2024.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dd_jax import augment
from dd_jax.errors import SetFileError
from dd_jax.evaluate.build import build_network
from dd_jax.evaluate.evaluate import (
    Evaluation,
    check_fits,
    evaluate,
    loss_for,
    network_keys,
    one_rate,
    summarise,
    test_accuracy,
)
from dd_jax.evaluate.protocol import Protocol
from dd_jax.evaluate.train import train
from dd_jax.store import DistilledSet
from dd_jax.synthetic.joined import stage_sets
from dd_jax.train.fit import rows_of
from dd_jax.train.losses import Loss
from dd_jax.train.supervision import own_labels
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
    network: Network, sets: Sequence[SyntheticSet], protocol: Protocol, *, loss: Loss, shape: tuple
) -> Network:
    """The network whose initial parameters have been trained on the sets, one after another.

    Each stage is a whole run of the protocol: its own rate and schedule, momentum from zero.

    Args:
      network: the architecture.
      sets: in order.
      protocol: with the epochs of one stage.
      loss: against the sets' labels, see `train.losses`.
      shape: (H, W, C).

    Returns:
      A `Network` that differs in `init` only, which now is a training.
    """
    for synthetic in sets:
        network = _after(network, synthetic, protocol, loss, shape)
    return network


def _after(network: Network, synthetic, protocol: Protocol, loss: Loss, shape: tuple) -> Network:
    if protocol.optimizer.learned_rate and synthetic.learning_rate is not None:
        protocol = protocol.varied(learning_rate=one_rate(synthetic.learning_rate))

    images, labels = jnp.asarray(synthetic.images), jnp.asarray(synthetic.labels)

    def init(key: jax.Array) -> PyTree:
        return train(
            network, protocol, size=images.shape[0], supervision=own_labels(loss), key=key,
            take=rows_of(images, labels), epochs=protocol.plan.epochs,
            batch_size=protocol.plan.batch_size,
            augmentation=augment.by_name(protocol.views.augmentation, shape),
        )

    return network._replace(init=init)


def evaluate_progressive(
    distilled: DistilledSet,
    test: RealData,
    *,
    protocol: Protocol,
    key: jax.Array,
    stages: int | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
) -> Evaluation:
    """Accuracy of fresh networks that are trained stage by stage.

    Args:
      distilled: a set of `stages` blocks, as `distill.progressive` makes it.
      test: real test data.
      protocol: of every stage.
      key: PRNG key; network i uses fold_in(key, i).
      stages: P; by default as many as the set was made in. 1 is `evaluate`.
      epochs: of each stage; by default as many as make the image passes of `protocol.plan.epochs`
        on the whole set.
      seeds: number of networks; the protocol's by default.

    Returns:
      An `Evaluation`.

    Raises:
      SetFileError: test data of another kind, or images that the stages cannot share.
    """
    stages = distilled.recipe.get("stages", 1) if stages is None else stages
    if stages == 1:
        return evaluate(distilled, test, protocol=protocol, key=key, seeds=seeds)
    check_fits(distilled.spec, test)
    count, classes = distilled.synthetic.images.shape[0], distilled.spec.num_classes
    if count % (classes * stages):
        raise SetFileError(f"the set has {count} images, which {stages} stages of {classes} "
                           "classes cannot share", fix="pass the number of stages it was made in")
    start = time.perf_counter()
    epochs = epochs or equal_budget(protocol.plan.epochs, stages)
    protocol = protocol.varied(epochs=epochs)
    loss = loss_for(distilled.label_kind, protocol)
    sets = stage_sets(distilled.synthetic, stages, classes)
    network = trained_on(build_network(protocol, distilled.spec), sets, protocol, loss=loss,
                         shape=distilled.spec.shape)

    @jax.jit
    def accuracies(keys, test, normaliser):
        def one(key):
            return test_accuracy(network, network.init(key), test, normaliser)

        return jax.lax.map(one, keys)

    keys = network_keys(key, seeds or protocol.seeds)
    return summarise(accuracies(keys, test, distilled.normaliser), start)
