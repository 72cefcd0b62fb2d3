"""The layers of a network have the same class means on real and on synthetic images.

  L =   sum_l w_l sum_c || mean_{x in B_c} F_l(x) - mean_{s in S_c} F_l(s) ||^2
      + w   sum_c || mean_{x in B_c} f(x) - m_c ||^2,       m_c = mean_{s in S_c} f(s)
      + d   sum_c sum_{x in B_c} CE( f(x) M^T, c ),         M = (m_1, ..., m_K)

Which layers count: F_l are all the taps of the network in their order, for a ConvNet the ReLU
outputs of its blocks before pooling, and f are its features, for a ConvNet the last map after
pooling, flattened. The last term tells classes apart: real images are classified by their inner
products with the synthetic centres. Cross-entropy of the network itself on real images, which the
paper adds, has no derivative in the synthetic set and is left out.

Real images have no derivative. They go through the network in chunks of which only the sums of maps
and the features stay, so that memory grows with the synthetic set and not with the real batch.

Source: Wang et al., CAFE: Learning to Condense Dataset by Aligning Features, CVPR 2022.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax

from dd_jax.augment import identity
from dd_jax.backend import check_mapping, map_over, mean_and_rest_in_chunks
from dd_jax.data import rows_per_class
from dd_jax.errors import ConfigError, require_at_least_zero, require_whole
from dd_jax.objectives.matching import by_class, pool_features, require_several_classes
from dd_jax.train.built import require_built
from dd_jax.types import (
    Augmentation,
    Batch,
    Network,
    Objective,
    Pool,
    PyTree,
    RealData,
    SyntheticSet,
)


def layer_matching(
    network: Network,
    pool: Pool,
    *,
    weights: Sequence[float] = (0.1, 0.1, 1.0),
    feature_weight: float = 2.0,
    discrimination: float = 0.01,
    batch_size: int = 256,
    measure_size: int = 0,
    augmentation: Augmentation | None = None,
    classes: str = "map",
    chunk: int | None = None,
) -> Objective:
    """CAFE's objective, see the module.

    Args:
      network: the architecture, without batch normalisation.
      pool: where the network of each step comes from.
      weights: w_l, one for each tap.
      feature_weight: w; 2 in the official code, which counts the last map as a layer and again as
        features.
      discrimination: d, of a sum (not a mean) over real images.
      batch_size: real images per class and step.
      measure_size: real images per class that the pool is given as a fourth argument of `advance`,
        for a `plateau_pool`; 0 for a pool that takes none.
      augmentation: drawn once per class and step, shared by real and synthetic images.
      classes: "map", "vmap" or "auto": one class after another, or all at once with K times the
        memory.
      chunk: real images per forward pass; None for the backend's default.

    Returns:
      An `Objective` over `Batch(images [K, batch_size, H, W, C], labels [K, batch_size])`, or, with
      `measure_size`, over {"match": that, "measure": the same of [K, measure_size]}; its state is
      the pool's. Metrics: the "matching" and the "discrimination" part of the loss.

    Raises:
      ConfigError: if a weight is negative, a size too small, or `measure_size` does not fit the
        pool; from `init`: if the network has another number of taps than there are weights, or
        batch normalisation, or if there is one class only and a discrimination; from `loss`: if
        some classes only are given and there is a discrimination.

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.convnet(DataSpec("toy", (8, 8, 1), 2, ("a", "b")), depth=2, width=4)
      >>> objective = layer_matching(network, pools.fresh_pool(network), weights=(0.1, 1.0))
    """
    weights = tuple(weights)
    _check_weights(weights, feature_weight, discrimination)
    require_whole("batch_size", batch_size)
    require_whole("measure_size", measure_size, least=0)
    _check_pool(pool, measure_size)
    require_built("augmentation", augmentation, Augmentation, optional=True)
    require_whole("chunk", 1 if chunk is None else chunk)
    check_mapping(classes)
    matching = _Matching(network, pool, augmentation or identity(), weights, feature_weight,
                         discrimination, batch_size, measure_size, classes, chunk)
    return Objective(
        loss=partial(_loss, matching),
        init=partial(_init, matching),
        sample=partial(_sample, matching),
        advance=partial(_advance, matching),
        embed=partial(pool_features, network, pool, chunk=chunk),
    )


@dataclasses.dataclass(frozen=True)
class _Matching:
    """The checked settings of one `layer_matching`."""

    network: Network
    pool: Pool
    augmentation: Augmentation
    weights: tuple[float, ...]
    feature_weight: float
    discrimination: float
    batch_size: int
    measure_size: int
    classes: str
    chunk: int | None


def _init(of: _Matching, key: jax.Array, synthetic: SyntheticSet) -> PyTree:
    if of.discrimination:
        require_several_classes(synthetic.labels.shape[-1], "the discrimination of one is zero",
                                instead="discrimination=0.0")
    state = of.pool.init(key, synthetic)
    variables = jax.eval_shape(lambda: of.pool.draw(state, key))
    outputs = jax.eval_shape(of.network.apply, variables, synthetic.images[:1])
    _check_network(of.network, variables, outputs.taps, of.weights)
    return state


def _sample(of: _Matching, data: RealData, state: PyTree, key: jax.Array) -> PyTree:
    match_key, measure_key = jax.random.split(key)
    rows = rows_per_class(data, match_key, of.batch_size)
    if not of.measure_size:
        return rows
    return {"match": rows, "measure": rows_per_class(data, measure_key, of.measure_size)}


def _loss(of: _Matching, synthetic: SyntheticSet, state: PyTree, batch: PyTree, key: jax.Array):
    real: Batch = batch["match"] if of.measure_size else batch
    count = real.images.shape[0]
    if of.discrimination and count != synthetic.labels.shape[-1]:
        raise ConfigError(f"layer_matching got {count} of {synthetic.labels.shape[-1]} classes",
                          fix="pass discrimination=0.0: that term tells all of them apart")
    draw_key, class_key = jax.random.split(key)
    variables = jax.lax.stop_gradient(of.pool.draw(state, draw_key))
    keys = jax.random.split(class_key, count)

    def mapped(fn, images):
        return map_over(lambda args: fn(of, variables, *args), (images, keys), how=of.classes)

    maps, features = jax.lax.stop_gradient(mapped(_of_real, real.images))
    own_maps, centres = mapped(_of_synthetic, by_class(synthetic, count).images)
    matching = of.feature_weight * jnp.sum((jnp.mean(features, axis=1) - centres) ** 2)
    for weight, a, b in zip(of.weights, maps, own_maps, strict=True):
        matching = matching + weight * jnp.sum((a - b) ** 2)
    told_apart = jnp.zeros((), matching.dtype)
    if of.discrimination:  # one class's centres tell nothing apart
        told_apart = of.discrimination * _entropies(features, centres, real.labels)
    return matching + told_apart, {"matching": matching, "discrimination": told_apart}


def _advance(
    of: _Matching, synthetic: SyntheticSet, state: PyTree, batch: PyTree, key: jax.Array
) -> PyTree:
    given = (batch["measure"],) if of.measure_size else ()
    return of.pool.advance(state, synthetic, key, *given)


def _of_real(of: _Matching, variables: PyTree, images: jax.Array, key: jax.Array):
    """Of one class: means of maps, and all features [B, P]."""
    params = of.augmentation.draw(key, 1)
    return mean_and_rest_in_chunks(lambda x: _seen(of, variables, params, x), images,
                                   size=of.chunk)


def _of_synthetic(of: _Matching, variables: PyTree, images: jax.Array, key: jax.Array):
    """Of one class: means of maps, and of features [P]."""
    maps, features = _seen(of, variables, of.augmentation.draw(key, 1), images)
    return _mean_over(maps, 0), jnp.mean(features, axis=0)


def _seen(of: _Matching, variables: PyTree, params: PyTree, images: jax.Array):
    """The taps and the features of augmented images."""
    outputs = of.network.apply(variables, of.augmentation.apply(params, images))
    return outputs.taps, outputs.features


def _mean_over(tree: PyTree, axis: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.mean(x, axis=axis), tree)


def _entropies(features: jax.Array, centres: jax.Array, labels: jax.Array) -> jax.Array:
    """Sum over [K, B] images of the cross-entropy of their products with the centres [K, P]."""
    scores = jnp.einsum("kbp,cp->kbc", features, centres, precision="highest")
    return jnp.sum(optax.losses.softmax_cross_entropy_with_integer_labels(scores, labels))


def _check_weights(weights: tuple, feature_weight: float, discrimination: float) -> None:
    for i, weight in enumerate(weights):
        require_at_least_zero(f"weights[{i}]", weight)
    require_at_least_zero("feature_weight", feature_weight)
    require_at_least_zero("discrimination", discrimination)


def _check_pool(pool: Pool, measure_size: int) -> None:
    require_built("pool", pool, Pool)
    if pool.watches != (measure_size > 0):
        raise ConfigError(
            f"measure_size is {measure_size}, and the pool looks at "
            + ("real images" if pool.watches else "no real images"),
            fix="pass measure_size=128" if pool.watches else "pass measure_size=0",
        )


def _check_network(network: Network, variables: PyTree, taps: tuple, weights: tuple) -> None:
    if "batch_stats" in variables:
        raise ConfigError(f"{network.name} has batch normalisation, but sees class after class",
                          fix="use norm='instance'")
    if len(taps) != len(weights):
        raise ConfigError(f"{network.name} has {len(taps)} taps and there are {len(weights)} "
                          "weights", fix=f"pass {len(taps)} weights, one for each tap")
