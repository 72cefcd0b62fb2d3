"""Fresh networks trained on a set and tested on real data, with baselines beside them."""

from __future__ import annotations

import time
import warnings
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax import augment
from dd_jax.backend import as_key, map_over, on_cpu, own_dtypes
from dd_jax.data import normalise
from dd_jax.data.normalise import Normaliser
from dd_jax.errors import ConfigError, printable
from dd_jax.evaluate.build import build_network
from dd_jax.evaluate.checks import check_seeds, check_split, check_testable, own_protocol
from dd_jax.evaluate.protocol import Protocol
from dd_jax.evaluate.random_images import Budget, random_images
from dd_jax.evaluate.replayed import check_replayed, refuse_replay
from dd_jax.evaluate.supervision import loss_for, supervision_of
from dd_jax.evaluate.train import predict, train
from dd_jax.labels.supervision import Supervision, own_labels
from dd_jax.store import DistilledSet
from dd_jax.synthetic import targets
from dd_jax.train.fit import rows_of
from dd_jax.train.replay import Replay
from dd_jax.train.teachers import real_images
from dd_jax.types import RealData, Split, SyntheticSet

_CHOICE = 1000  # apart from the labels that training folds into the same keys


class Evaluation(NamedTuple):
    """Test accuracies, fractions in [0, 1].

    Attributes:
      accuracies: [S] float, one for each network.
      mean, std: over the networks (population deviation, as the papers report it).
      seconds: wall time, compilation included.
    """

    accuracies: np.ndarray
    mean: float
    std: float
    seconds: float


def _fresh_accuracy(key, take, size, test, normaliser, supervision, weights=None, *, spec, protocol,
                    epochs, batch_size):
    """Accuracy on `test` of one fresh network trained on the `size` images that `take` gives."""
    network = build_network(protocol, spec)
    variables = train(
        network, protocol, size=size, take=take, supervision=supervision, epochs=epochs,
        batch_size=batch_size, key=key, weights=weights,
        augmentation=augment.by_name(protocol.views.augmentation, spec.shape),
    )
    return test_accuracy(network, variables, test, normaliser)


def test_accuracy(network, variables, test: RealData, normaliser: Normaliser) -> jax.Array:
    """[] share of the test images that a trained network classifies rightly."""
    predicted = predict(network, variables, test.images, chunk=_test_chunk(),
                        prepare=lambda x: normalise(normaliser, x))
    return jnp.mean(predicted == test.labels)


@partial(jax.jit, static_argnames=("spec", "protocol", "epochs", "batch_size", "how"))
def _train_and_test(keys, sets, test, normaliser, supervision, weights=None, *, how, **options):
    """One accuracy for each (key, set); every leaf of `sets` has the leading axis of `keys`.

    The supervision and the weights [M] are the same for all sets.
    """

    def one(args):
        key, (images, labels) = args
        return _fresh_accuracy(key, rows_of(images, labels), images.shape[0], test, normaliser,
                               supervision, weights, **options)

    return map_over(one, (keys, sets), how=how)


@partial(jax.jit, static_argnames=("spec", "protocol", "kind", "scale", "how"))
def _train_on_all(keys, data, test, normaliser, supervision, *, spec, protocol, kind, scale, how):
    take = real_images(data, normaliser, kind=kind, scale=scale)

    def one(key):
        return _fresh_accuracy(
            key, take, data.labels.shape[0], test, normaliser, supervision, spec=spec,
            protocol=protocol, epochs=protocol.full.epochs, batch_size=protocol.full.batch_size,
        )

    return map_over(one, keys, how=how)


def summarise(accuracies: jax.Array, start: float) -> Evaluation:
    """Accuracies of work that began at `time.perf_counter() == start`."""
    values = np.asarray(accuracies, np.float64)
    seconds = time.perf_counter() - start
    return Evaluation(values, float(values.mean()), float(values.std()), seconds)


def _warn_of_one_class(distilled: DistilledSet) -> None:
    taught = np.unique(distilled.hard_labels)
    if len(taught) == 1 and distilled.spec.num_classes > 1:
        name = printable(distilled.spec.class_names[int(taught[0])], most=80)
        warnings.warn(f"every label of the set is largest for class {taught[0]} ({name}): networks "
                      "trained on it know no other class", stacklevel=3)


def evaluate(
    distilled: DistilledSet,
    test: RealData,
    *,
    protocol: Protocol | None = None,
    key: int | jax.Array = 1,
    supervision: Supervision | Replay | None = None,
    seeds: int | None = None,
    how: str = "auto",
) -> Evaluation:
    """Trains fresh networks on a distilled set and tests them.

    The set may have any shape: uint8 images, class numbers, classes of any size, weights. Its
    normaliser is applied to the test images and the loss follows from what its labels mean, so
    neither can be forgotten. A label store beside the set is what the networks are told.

    Args:
      distilled: the set, see `store.load`.
      test: real test data of the same shape and classes.
      protocol: how the networks are trained; the set's own by default.
      key: an integer seed or a typed PRNG key; network i uses fold_in(key, i).
      supervision: what the networks are told in place of the set's labels and label store, such as
        `labels.teacher(network, variables)`; its arrays are arguments of the compiled test. A
        `Replay` of a store of views also shows these, see `store.replay`.
      seeds: number of networks; the protocol's by default.
      how: "map" or "vmap" over networks; by backend by default.

    Returns:
      An `Evaluation`.

    Raises:
      SetFileError: shapes or classes do not match.
      ConfigError: cross-entropy on centred labels, or what else `check_testable` refuses.
      DataError: test data without images.

    Warns where every label of the set is largest for one and the same class, and where classes have
    other names than the set's.
    """
    protocol = own_protocol(distilled) if protocol is None else protocol
    key = as_key(key)
    check_testable(distilled, test, protocol, labels=supervision is None)
    check_seeds(seeds)
    if isinstance(supervision, Replay):
        check_replayed(supervision, distilled, protocol)
    if supervision is None and distilled.label_store is None:
        _warn_of_one_class(distilled)
    with own_dtypes():
        start = time.perf_counter()
        count = seeds or protocol.seeds
        supervision = supervision or supervision_of(distilled, protocol)
        synthetic = distilled.trainable()
        protocol = at_own_rate(protocol, synthetic)
        sets = (synthetic.images, synthetic.labels)
        sets = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), sets)
        accuracies = _train_and_test(
            network_keys(key, count), sets, test, distilled.normaliser, supervision,
            synthetic.weights, spec=distilled.spec, protocol=protocol, epochs=protocol.plan.epochs,
            batch_size=protocol.plan.batch_size, how=how)
        return summarise(accuracies, start)


def at_own_rate(protocol: Protocol, synthetic: SyntheticSet) -> Protocol:
    """The protocol with the set's own rate, or rates in stored order, if it asks for them."""
    rates = synthetic.learning_rate
    if not protocol.optimizer.learned_rate or rates is None:
        return protocol
    if protocol.plan.order == "stored" and np.ndim(rates):
        rate = tuple(float(r) for r in np.asarray(rates))
    else:
        rate = one_rate(rates)
    return protocol.varied(learning_rate=rate)


def one_rate(rates: np.ndarray) -> float:
    """The learned rate of a set as a number; refuses several."""
    if np.size(rates) != 1:
        raise ConfigError(f"the set has {np.size(rates)} learning rates, one for each step of its "
                          "inner loop or each stage, which one schedule of epochs cannot follow",
                          fix="call evaluate.evaluate_progressive for a set made in stages, or use "
                              "a protocol with learned_rate=False")
    return float(np.asarray(rates).reshape(()))


@own_dtypes()
def evaluate_random(
    data: Split,
    *,
    normaliser: Normaliser,
    protocol: Protocol,
    ipc: Budget,
    key: int | jax.Array,
    label_kind: str = "one_hot",
    label_scale: float = 1.0,
    supervision: Supervision | None = None,
    seeds: int | None = None,
    shown: int | None = None,
    how: str = "auto",
) -> Evaluation:
    """The baseline of random real images: as many per class, a new choice for each network.

    The arguments are those of `evaluate`, and `ipc` as for `random_images`: `budget` is that of a
    set, also of one with classes of unequal size. Labels are hard labels of the given
    kind. `shown` is how many images the set beside it shows, where these are more than it stores:
    networks then take as many steps as on that set. A protocol's order and start are kept; its rate
    is its own `learning_rate`, since these images learned none.
    """
    check_split(data)
    check_seeds(seeds)
    refuse_replay(supervision)
    key = as_key(key)
    start = time.perf_counter()
    count = seeds or protocol.seeds
    spec = data.train.spec
    keys = network_keys(key, count)
    sets = [random_images(data.train, jax.random.fold_in(k, _CHOICE), ipc) for k in keys]
    images = jnp.stack([normalise(normaliser, images) for images, _ in sets])
    labels = jnp.stack([targets(classes, spec.num_classes, kind=label_kind, scale=label_scale)
                        for _, classes in sets])
    epochs, batch_size = protocol.plan.epochs, protocol.plan.batch_size
    if shown is not None:
        each, theirs = (-(-n // batch_size) for n in (images.shape[1], shown))
        epochs = -(-epochs * theirs // each)
    return summarise(
        _train_and_test(
            keys, (images, labels), data.test, normaliser,
            supervision or own_labels(loss_for(label_kind, protocol)), spec=spec,
            protocol=protocol, epochs=epochs, batch_size=batch_size, how=how,
        ),
        start,
    )


@own_dtypes()
def evaluate_full(
    data: Split,
    *,
    normaliser: Normaliser,
    protocol: Protocol,
    key: int | jax.Array,
    label_kind: str = "one_hot",
    label_scale: float = 1.0,
    supervision: Supervision | None = None,
    seeds: int = 1,
    how: str = "auto",
) -> Evaluation:
    """The ceiling: networks trained on all real data for `protocol.full.epochs` epochs."""
    check_split(data)
    check_seeds(seeds)
    refuse_replay(supervision)
    key = as_key(key)
    start = time.perf_counter()
    # The order and the start are of the small set: all images have none.
    protocol = protocol.varied(order="random", start_seed=None)
    return summarise(
        _train_on_all(
            network_keys(key, seeds), data.train, data.test, normaliser,
            supervision or own_labels(loss_for(label_kind, protocol)), spec=data.train.spec,
            protocol=protocol, kind=label_kind, scale=label_scale, how=how,
        ),
        start,
    )


def _test_chunk() -> int:
    # Activations that fit the cache of a CPU; on an accelerator, its memory for all networks.
    return 32 if on_cpu() else 1000


def network_keys(key: jax.Array, count: int) -> jax.Array:
    """One key for each of `count` networks: fold_in(key, i)."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))
