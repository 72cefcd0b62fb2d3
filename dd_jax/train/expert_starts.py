"""Starts of a synthetic set that trained experts choose: what they classify rightly, or what
represents a class as they see it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.data import Normaliser, gather, normalise, real_rows
from dd_jax.data.fetch import fetch
from dd_jax.synthetic import class_major_labels, targets
from dd_jax.train.experts import unflatten
from dd_jax.train.representatives import representatives
from dd_jax.train.segments import Segments
from dd_jax.types import HostRows, Network, PyTree, RealData, SyntheticSet

Initialise = Callable[[RealData, jax.Array], SyntheticSet]
_CANDIDATES = 4  # random images looked at for each that is taken, and at least
_AT_LEAST = 32  # so many per class


def final_parameters(segments: Segments, network: Network, expert: jax.Array) -> PyTree:
    """Parameters of one expert at its last epoch, read while the program runs."""
    like = jax.eval_shape(network.init, jax.random.key(0))["params"]
    epoch = jnp.asarray(segments.trajectories.epochs - segments.span, jnp.int32)
    found = fetch(None, HostRows((jnp.asarray(expert, jnp.int32), epoch), segments))
    return unflatten(like)(found.target)


def _logits(network: Network, params: PyTree, images: jax.Array) -> jax.Array:
    return in_chunks(lambda x: network.apply({"params": params}, x).logits, images)


def classified_start(
    segments: Segments, network: Network, *, normaliser: Normaliser, ipc: int
) -> Initialise:
    """Random real images that a trained expert classifies rightly, with what experts say of them.

    The label of an image is the softmax of the mean logits of all experts that classify it rightly.
    A class of which too few are right is filled up with wrong ones.

    Args:
      segments: of the experts.
      network: theirs.
      normaliser: from stored images to model space.
      ipc: images per class.

    Returns:
      (data, key) -> SyntheticSet, labels probabilities [K * ipc, K].
    """
    experts = len(segments.trajectories.experts)

    def initialise(data: RealData, key: jax.Array) -> SyntheticSet:
        rows_key, expert_key = jax.random.split(key)
        classes = data.spec.num_classes
        count = max(_CANDIDATES * ipc, _AT_LEAST)
        images = normalise(normaliser, gather(data, real_rows(data, rows_key, count))[0])
        one = final_parameters(segments, network, jax.random.randint(expert_key, (), 0, experts))
        seen = jnp.argmax(_logits(network, one, images), axis=-1)
        wrong = (seen != class_major_labels(classes, count)).reshape(classes, count)
        # The rows of a small class come round again: these are the last to be taken.
        again = jnp.arange(count) >= data.class_counts[:, None]
        best = jnp.argsort(wrong + 2 * again, axis=1, stable=True)[:, :ipc]
        rows = (best + count * jnp.arange(classes)[:, None]).reshape(-1)
        images, labels = images[rows], class_major_labels(classes, ipc)

        def add(total, expert):
            logits = _logits(network, final_parameters(segments, network, expert), images)
            right = (jnp.argmax(logits, axis=-1) == labels)[:, None]
            part = (jnp.where(right, logits, 0.0), right.astype(logits.dtype), logits)
            return jax.tree.map(jnp.add, total, part), None

        zeros = jnp.zeros((classes * ipc, classes))
        start = (zeros, zeros[:, :1], zeros)
        (total, right, all_of_them), _ = jax.lax.scan(add, start, jnp.arange(experts))
        # An image that no expert classifies rightly has the mean of all.
        mean = jnp.where(right > 0, total / jnp.maximum(right, 1), all_of_them / experts)
        return SyntheticSet(images, jax.nn.softmax(mean))

    return initialise


def representative_start(
    segments: Segments, network: Network, *, normaliser: Normaliser, ipc: int
) -> Initialise:
    """Real images nearest to the centres of a class's clusters in a trained expert's logits.

    Args:
      segments, network, normaliser, ipc: as for `classified_start`.

    Returns:
      (data, key) -> SyntheticSet, labels one-hot.
    """
    experts = len(segments.trajectories.experts)

    def initialise(data: RealData, key: jax.Array) -> SyntheticSet:
        expert_key, cluster_key = jax.random.split(key)
        expert = jax.random.randint(expert_key, (), 0, experts)
        params = final_parameters(segments, network, expert)
        rows = representatives(data, lambda x: network.apply({"params": params}, x).logits,
                               count=ipc, key=cluster_key, normaliser=normaliser)
        classes = data.spec.num_classes
        labels = targets(class_major_labels(classes, ipc), classes, kind="one_hot")
        return SyntheticSet(normalise(normaliser, gather(data, rows.reshape(-1))[0]), labels)

    return initialise
