"""What networks are told that are trained on a set: its labels, or the label store beside it."""

from __future__ import annotations

import numpy as np

from dd_jax.errors import ConfigError
from dd_jax.evaluate.protocol import Protocol
from dd_jax.evaluate.settings import PROTOCOL_LOSSES
from dd_jax.labels.losses import Loss, cross_entropy, integer_cross_entropy, squared_error
from dd_jax.labels.supervision import Supervision, own_labels, stored_targets
from dd_jax.store import DistilledSet, read_targets


def loss_for(label_kind: str, protocol: Protocol) -> Loss:
    """Which training loss fits labels of this kind; refuses those that do not.

    Class numbers are taught as one-hot labels, of which the two cross-entropies are the same.

    Raises:
      ConfigError: the protocol asks for cross-entropy on labels that are not probabilities, or for
        that of class numbers on labels that are none, or the labels are no classes at all.
    """
    if label_kind == "representations":
        raise ConfigError("the labels are representations, which no classifier can be tested on",
                          fix="call evaluate.evaluate_transfer")
    name, free = protocol.supervision.loss, label_kind in ("centred", "logits")
    if (name == "cross_entropy" and free) or (
            name == "integer_cross_entropy" and label_kind not in ("classes", "one_hot")):
        raise ConfigError(
            f"protocol {protocol.name!r} trains with {name.replace('_', '-')} but the labels are "
            f"{label_kind}", fix="use loss='auto' or loss='squared_error'")
    loss = PROTOCOL_LOSSES[name] or (squared_error if free else cross_entropy)
    return cross_entropy if loss is integer_cross_entropy else loss


def loss_of(distilled: DistilledSet, protocol: Protocol) -> Loss:
    """The loss against what a set teaches: its label store where it has one, else its labels.

    Raises:
      ConfigError: as `loss_for`; or CutMix, whose mixed images a label store has no labels of.
    """
    store = distilled.label_store
    if store is None or distilled.label_kind == "representations":
        return loss_for(distilled.label_kind, protocol)
    mix = "CutMix" if protocol.views.cutmix else "mixup" if protocol.views.mixup else None
    if mix is not None:
        raise ConfigError(f"protocol {protocol.name!r} mixes images by {mix}, and the set's label "
                          "store has labels of whole images",
                          fix=f"pass {mix.lower()}=0.0, or supervision=labels.own_labels()")
    return loss_for(store.kind, protocol)


def supervision_of(distilled: DistilledSet, protocol: Protocol) -> Supervision:
    """What a set teaches, as a `Supervision`.

    Of a set with a label store it is the stored labels, in epoch e of the training those of epoch e
    modulo the stored epochs; they are held in memory as they are stored.

    Raises:
      ConfigError: as `loss_of`.
      SetFileError: the label store is gone, changed or damaged.
    """
    loss, store = loss_of(distilled, protocol), distilled.label_store
    if store is None:
        return own_labels(loss)
    stored = np.empty(store.shape, store.dtype)
    for epoch in range(store.shape[0]):
        stored[epoch] = read_targets(store, epoch)
    return stored_targets(stored, loss=loss, by_epoch=True)
