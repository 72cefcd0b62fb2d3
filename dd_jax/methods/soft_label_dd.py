"""Soft-label DD: Soft-Label Dataset Distillation and Text Dataset Distillation (Sucholutsky and
Schonlau, IJCNN 2021).

DD whose labels are free vectors Y, learned along: the inner loss is -sum_c Y_c log softmax(f)_c.
They start one-hot; networks are tested on them by the same loss.

Differs from the official code: as DD does, see `methods.dd`; a set has as many images of every
class (there there may be fewer images than classes); no softmax over the labels, as there by
default. The released figures (MNIST, ten images: 96; CIFAR-10, 100 images: 60) are for one fixed
network, initialisation="fixed".
"""

from __future__ import annotations

from dd_jax.methods import dd


class SoftLabelDD(dd.DD):
    """Settings of soft-label DD, those of `dd.DD`."""

    presets = dd.DD.presets

    def labels(self) -> dict:
        return dict(labels="learned", kind="logits", loss="free_cross_entropy")
