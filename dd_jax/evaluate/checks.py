"""What a test refuses before anything is trained: arguments, data, and sets that do not fit."""

from __future__ import annotations

import warnings

import numpy as np

from dd_jax import augment
from dd_jax.errors import ConfigError, DataError, SetFileError, require_kind, require_whole, told
from dd_jax.evaluate.build import build_network
from dd_jax.evaluate.optimizers import check_steps
from dd_jax.evaluate.protocol import Protocol
from dd_jax.evaluate.random_images import named_classes
from dd_jax.evaluate.supervision import loss_of
from dd_jax.evaluate.train import check_order
from dd_jax.store import DistilledSet
from dd_jax.types import DataSpec, RealData, Split


def check_fits(spec: DataSpec, test: RealData) -> None:
    """Refuses test data of another image shape, number or order of classes than the set's.

    Warns where the classes have other names.

    Raises:
      SetFileError: as said.
      ConfigError: `test` is no `RealData`.
    """
    require_kind("test", test, RealData, expected="RealData",
                 fix="pass the test part of a Split, data.test")
    if test.spec.shape != spec.shape:
        raise SetFileError(
            f"the set has images of shape {spec.shape}, the test data {test.spec.shape}",
            fix="evaluate on the data set that was distilled",
        )
    if test.spec.num_classes != spec.num_classes:
        raise SetFileError(
            f"the set has {spec.num_classes} classes, the test data {test.spec.num_classes}",
            fix="evaluate on the data set that was distilled",
        )
    ours, theirs = spec.class_names, test.spec.class_names
    if ours != theirs and sorted(ours) == sorted(theirs):
        place = next(i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1])
        raise SetFileError(
            f"class {place} of the set is {told(ours[place])}, that of the test data is "
            f"{told(theirs[place])}: the same classes in another order",
            fix="number the test labels as those of the data that was distilled")
    if ours != theirs:
        warnings.warn(f"the classes of {told(test.spec.name)} are not called as those of the set, "
                      f"which was distilled from {told(spec.name)}", stacklevel=2)


def check_testable(
    distilled: DistilledSet, test: RealData, protocol: Protocol, *, labels: bool = True
) -> None:
    """Refuses, before anything is trained or compiled, what a protocol cannot test.

    Args:
      distilled: the set.
      test: real test data.
      protocol: of the training.
      labels: whether the set's own labels, or its label store, are what networks are told.

    Raises:
      SetFileError: shapes or classes do not match.
      ConfigError: a set without images, images too small for the network, a loss that does not fit
        the labels, or batches that the set cannot be cut into.
      DataError: test data without images.
    """
    check_set(distilled)
    require_kind("protocol", protocol, Protocol, expected="a Protocol",
                 fix="leave it out for the set's own, or call evaluate.protocol(name, ...)")
    check_fits(distilled.spec, test)
    if labels:
        loss_of(distilled, protocol)
    size = distilled.synthetic.images.shape[0]
    if size == 0:
        raise ConfigError("the set has 0 images, expected at least 1",
                          fix="select at least one image")
    if test.labels.shape[0] == 0:
        raise DataError("the test data has 0 images, expected at least 1", fix="pass all of it")
    build_network(protocol, distilled.spec)
    augment.by_name(protocol.views.augmentation, distilled.spec.shape)
    check_steps(protocol.steps(size))
    if protocol.plan.order != "random":
        _check_class_major(distilled, protocol)
        check_order(protocol.plan.order, distilled.spec.num_classes, size=size,
                    batch_size=protocol.plan.batch_size)


def _check_class_major(distilled: DistilledSet, protocol: Protocol) -> None:
    named, classes = named_classes(distilled), distilled.spec.num_classes
    if named is None:
        return
    shared = np.repeat(np.arange(classes), -(-len(named) // classes))
    if not np.array_equal(named, shared):
        raise ConfigError(
            f"protocol {protocol.name!r} takes batches in order {protocol.plan.order!r}, and the "
            "set has not as many images of every class, class by class",
            fix="pass order='random'")


def own_protocol(distilled: DistilledSet) -> Protocol:
    """The protocol that travels with a set.

    Raises:
      SetFileError: it has none, or not one that can be read.
      ConfigError: it is no set.
    """
    check_set(distilled)
    return Protocol.from_plain(distilled.evaluation)


def check_set(distilled: DistilledSet) -> None:
    """Refuses what is no `DistilledSet`, such as its arrays or its file's name.

    Raises:
      ConfigError: as said.
    """
    require_kind("the set", distilled, DistilledSet, expected="a DistilledSet",
                 fix="pass what dd.distill or dd.load gives")


def check_seeds(seeds: int | None) -> None:
    """Refuses a number of networks that cannot be; None is the protocol's.

    Raises:
      ConfigError: as said.
    """
    if seeds is not None:
        require_whole("seeds", seeds, example=5)


def check_split(data: Split) -> None:
    """Refuses what is no `Split`, such as one of its parts.

    Raises:
      ConfigError: as said.
    """
    require_kind("data", data, Split, expected="a Split of RealData",
                 fix="pass what dd.data.load gives, or dd.data.split_of(train, test)")
