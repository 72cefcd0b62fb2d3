"""A fixed network sees the synthetic images of a class as the barycentre of its real ones.

With features F(X_c) [k, P] of the images of class c, barycentre points Z_c, and of the input of
each batch normalisation l the mean m_l(X_c) and variance v_l(X_c) over images and space,

  L = sum over blocks B of  D_B + mean_{c in B} [ label_weight * CE(X_c)
        + statistics_weight * sum_l (|m_l(X_c) - m_lc|_2 + |v_l(X_c) - v_lc|_2) ]
  D_B = ( sum_{c in B} |F(X_c) - Z_c|^2 )^(1/2),   or without the root for `squared`.

Blocks share nothing but the step, so that together they are what they were one after another. All
images of a block have one augmentation in a step. No real batch is needed.

Source: Liu et al., Dataset Distillation via the Wasserstein Metric, ICCV 2025.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.augment import identity
from dd_jax.backend import all_at_once, check_mapping, in_chunks, map_over
from dd_jax.errors import ConfigError, require_at_least_zero, require_whole, unknown
from dd_jax.train.class_targets import ClassTargets
from dd_jax.types import Augmentation, Network, Objective, PyTree, RealData, SyntheticSet

DISTANCES = ("unsquared", "squared")
_BOUND = "each of its images has its own point of a barycentre"


class FixedState(NamedTuple):
    """What never changes; in the state, because what a closure holds is a constant of the program.

    Attributes:
      variables: of the network.
      targets: of all classes.
    """

    variables: PyTree
    targets: ClassTargets


def barycentre_matching(
    network: Network,
    variables: PyTree,
    targets: ClassTargets,
    *,
    block: int | None = None,
    distance: str = "unsquared",
    label_weight: float = 1.0,
    statistics_weight: float = 10.0,
    augmentation: Augmentation | None = None,
    classes: str = "auto",
    chunk: int | None = None,
) -> Objective:
    """WMDD's objective, see the module; the memory is that of one class where they are mapped.

    Args:
      network, variables: the fixed network, used in evaluation mode.
      targets: of all classes; the synthetic set has as many images of each as there are points.
      block: classes in a block; None for all of them.
      distance: "unsquared", as released, or "squared", as in the paper.
      label_weight: of the cross-entropy to the synthetic labels; 0 in the paper.
      statistics_weight: of the batch-normalisation statistics.
      augmentation: drawn once for each block and step.
      classes: "map", "vmap" or "auto": one class after another, or all at once.
      chunk: images per forward pass of `embed`; None for the backend's default.

    Returns:
      An `Objective` over the batch (); its state is a `FixedState`. Metrics are the three terms,
      before their weights, averaged over blocks.

    Raises:
      ConfigError: an unknown name, a block below 1, a negative weight, statistics of a network
        that has none; from the loss: a set of another number of images.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.convnet(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), depth=1, width=2,
      ...                        norm="batch")
      >>> targets = ClassTargets(jnp.zeros((2, 1, 32)), ((jnp.zeros((2, 2)), jnp.ones((2, 2))),))
      >>> objective = barycentre_matching(network, network.init(jax.random.key(0)), targets)
    """
    count, per_class = targets.points.shape[:2]
    block = count if block is None else block
    _check(network, targets, block, distance, label_weight, statistics_weight)
    check_mapping(classes)
    augmentation = augmentation or identity()
    blocks = (np.arange(count) // block).astype(np.int32)
    total = int(blocks[-1]) + 1
    shares = 1 / np.bincount(blocks)[blocks]

    def part(variables, args):
        images, labels, wanted, key = args
        images = augmentation.apply(augmentation.draw(key, 1), images)
        outputs, found = network.norm_inputs(variables, images)
        compared = (found, wanted.statistics) if statistics_weight else ((), ())
        gaps = [_length(seen - real) for pairs in zip(*compared, strict=True)
                for seen, real in zip(*pairs)]
        return {
            "distance": jnp.sum((outputs.features - wanted.points) ** 2),
            "cross_entropy": jnp.mean(optax.losses.softmax_cross_entropy(outputs.logits, labels)),
            "statistics": sum(gaps, jnp.zeros((), images.dtype)),
        }

    def loss(synthetic: SyntheticSet, state: FixedState, batch, key: jax.Array):
        if synthetic.images.shape[0] != count * per_class:
            raise ConfigError(
                f"the set has {synthetic.images.shape[0]} images, the barycentres "
                f"{count} times {per_class} points",
                fix="let the parameterization show as many images per class as there are points",
            )
        images, labels = (x.reshape(count, per_class, *x.shape[1:])
                          for x in (synthetic.images, synthetic.labels))
        keys = jax.random.split(key, total)[blocks]
        # Class after class, only images wait for the backward pass.
        one = part if all_at_once(classes) else jax.checkpoint(part)
        fixed, wanted = jax.lax.stop_gradient((state.variables, state.targets))
        terms = map_over(lambda args: one(fixed, args), (images, labels, wanted, keys),
                         how=classes)
        if distance == "squared":
            apart = jnp.sum(terms["distance"])
        else:
            apart = jnp.sum(_root(jax.ops.segment_sum(
                terms["distance"], blocks, num_segments=total)))
        entropy, statistics = (jnp.sum(shares.astype(images.dtype) * terms[name])
                               for name in ("cross_entropy", "statistics"))
        metrics = {"distance": apart, "cross_entropy": entropy, "statistics": statistics}
        value = apart + label_weight * entropy + statistics_weight * statistics
        return value, {name: x / total for name, x in metrics.items()}

    def embed(state: FixedState, images: jax.Array, key: jax.Array) -> jax.Array:
        found = in_chunks(lambda x: network.apply(state.variables, x).features, images, size=chunk)
        return jax.lax.stop_gradient(found)

    def sample(data: RealData, state, key: jax.Array) -> tuple:
        return ()

    def init(key: jax.Array, synthetic: SyntheticSet) -> FixedState:
        return FixedState(variables, targets)

    return Objective(loss=loss, init=init, sample=sample, embed=embed, bound=_BOUND, real=False)


def _root(x: jax.Array) -> jax.Array:
    """The square root, of derivative 0 at 0 instead of infinity."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def _length(x: jax.Array) -> jax.Array:
    return _root(jnp.sum(x**2))


def _check(network, targets, block, distance, label_weight, statistics_weight) -> None:
    require_whole("block", block, example=10)
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)
    require_at_least_zero("label_weight", label_weight)
    require_at_least_zero("statistics_weight", statistics_weight)
    if network.norm_inputs is None or (statistics_weight and not targets.statistics):
        raise ConfigError(f"the network {network.name!r} shows no batch-normalisation statistics",
                          fix="build it with norm='batch'")
