"""Features of each class's real and synthetic images agree under networks of a pool.

  L = scale * sum_c d( f(A_c B_c), f(A_c S_c) )  +  sum_c w(pool) mean_{s in S_c} CE(f_theta(A_c s))

d is a `Discrepancy`, A_c one augmentation draw for the real images B_c and the synthetic images S_c
of class c. Features of real images are constants; the second term is there where `supervision` is.

Sources: Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023; the
discrepancies name their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.augment import identity
from dd_jax.backend import check_mapping, in_chunks, map_over, mean_in_chunks
from dd_jax.errors import require_at_least_zero, require_whole
from dd_jax.objectives.discrepancy import Discrepancy, Probe
from dd_jax.objectives.matching import (
    at_most,
    by_class,
    check_pool,
    matched_rows,
    pool_features,
    real_as_set,
    require_all_classes,
)
from dd_jax.solvers.separable import separable_sum
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

_NO_PROBE = Probe(init=lambda key, like: (), draw=lambda params, key: ())


class DistributionState(NamedTuple):
    """State of `distribution_matching`.

    Attributes:
      pool: of the pool.
      probe: parameters of the discrepancy's probe.
      ascent: of the probe's optimizer, or () where it is not learned.
    """

    pool: PyTree
    probe: PyTree
    ascent: PyTree


def distribution_matching(
    network: Network,
    pool: Pool,
    discrepancy: Discrepancy,
    *,
    batch_size: int = 256,
    scale: float = 1.0,
    augmentation: Augmentation | None = None,
    most: int | None = None,
    supervision: Callable[[PyTree], jax.Array] | None = None,
    train_rows: int = 0,
    classes: str = "auto",
    chunk: int | None = None,
) -> Objective:
    """Distribution matching, see the module.

    Beside the real batch itself, memory grows with the synthetic images of one class: of a real
    image only what the discrepancy keeps is stored. A network with batch normalisation sees the
    real images of all classes together in training mode, and then the synthetic ones, as official
    codes have it; there memory is that of both batches.

    Args:
      network: the architecture.
      pool: where the network of each step comes from.
      discrepancy: how a class's features are compared.
      batch_size: real images per class and step.
      scale: multiplies the discrepancies.
      augmentation: drawn once per class and step, shared by real and synthetic images.
      most: a class with more synthetic images is subsampled to this many in each step.
      supervision: state of the pool -> weight of the cross-entropy of the same augmented synthetic
        images under the same network; labels are then probabilities.
      train_rows: the pool is trained on this many random real images instead of the synthetic ones.
      classes: "map", "vmap" or "auto": one class after another, or all at once.
      chunk: images per forward pass; None for the backend's default.

    Returns:
      An `Objective` over `Batch(images [K, batch_size, H, W, C], labels [K, batch_size])`, or, with
      `train_rows`, over {"match": that, "train": Batch of [train_rows]}; a learned probe adds
      "ascent", like "match", to the latter. Its state is a `DistributionState`.

    Raises:
      ConfigError: if `classes` is unknown, if a count is below 1 or `scale` below 0, or if the
        pool, the discrepancy or the augmentation is something else, such as its factory; from the
        loss: if batch normalisation is given some of the classes only.

    Example:
      >>> from dd_jax import nets, objectives, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> objective = distribution_matching(network, pools.fresh_pool(network),
      ...                                   objectives.mean_features(), batch_size=16)
    """
    check_pool(pool)
    require_built("discrepancy", discrepancy, Discrepancy)
    require_built("augmentation", augmentation, Augmentation, optional=True)
    for name, value in (("batch_size", batch_size), ("most", 1 if most is None else most)):
        require_whole(name, value)
    require_whole("train_rows", train_rows, least=0)
    require_at_least_zero("scale", scale, example=1.0)
    require_whole("chunk", 1 if chunk is None else chunk)
    check_mapping(classes)
    matching = _Matching(network, pool, discrepancy, augmentation or identity(), batch_size, scale,
                         most, supervision, train_rows, classes, chunk)
    return Objective(
        loss=partial(_loss, matching),
        init=partial(_init, matching),
        sample=partial(_sample, matching),
        advance=partial(_advance, matching),
        embed=partial(_embed, matching),
    )


@dataclasses.dataclass(frozen=True)
class _Matching:
    """The checked settings of one `distribution_matching`."""

    network: Network
    pool: Pool
    discrepancy: Discrepancy
    augmentation: Augmentation
    batch_size: int
    scale: float
    most: int | None
    supervision: Callable[[PyTree], jax.Array] | None
    train_rows: int
    classes: str
    chunk: int | None

    @property
    def probe(self) -> Probe:
        """The discrepancy's probe, or one that draws nothing."""
        return self.discrepancy.probe or _NO_PROBE


class _Step(NamedTuple):
    """What the loss of a step and the ascent of its probe are computed from.

    Attributes:
      variables: of the pool's network, constants.
      parts: the synthetic set class by class, [K, n, ...].
      images: the real ones, [K, B, ...].
      keys: [K], for the augmentation and the choice of synthetic images.
      probe_keys: [K].
    """

    variables: PyTree
    parts: SyntheticSet
    images: jax.Array
    keys: jax.Array
    probe_keys: jax.Array


def _init(of: _Matching, key: jax.Array, synthetic: SyntheticSet) -> DistributionState:
    pool_key, probe_key = jax.random.split(key)
    state = of.pool.init(pool_key, synthetic)
    if of.discrepancy.probe is None:
        return DistributionState(state, (), ())

    def kept(images):
        return of.discrepancy.collect(of.network.apply(of.pool.draw(state, pool_key), images))

    params = of.probe.init(probe_key, jax.eval_shape(kept, synthetic.images[:1]))
    ascent = () if of.probe.optimizer is None else of.probe.optimizer.init(params)
    return DistributionState(state, params, ascent)


def _sample(of: _Matching, data: RealData, state: DistributionState, key: jax.Array) -> PyTree:
    rows = matched_rows(data, key, of.batch_size, of.train_rows)
    if of.probe.optimizer is None:
        return rows
    # The probe looks at all classes also where each has a step of its own.
    named = rows if of.train_rows else {"match": rows}
    return {**named, "ascent": named["match"]}


def _loss(of: _Matching, synthetic: SyntheticSet, state: DistributionState, batch: PyTree, key):
    step = _ingredients(of, synthetic, state, _named(batch, "match"), key)
    weight = ()
    if of.supervision is not None:
        weight = jax.lax.stop_gradient(of.supervision(state.pool))
    if "batch_stats" in step.variables:
        pairs = _joint_pairs(of, step)
        params = jax.lax.stop_gradient(state.probe)
        drawn = map_over(lambda k: of.probe.draw(params, k), step.probe_keys, how=of.classes)
        return jnp.sum(jax.vmap(lambda *pair: _value(of, *pair, weight))(pairs, drawn)), {}
    shared = (step.variables, jax.lax.stop_gradient(state.probe), weight)
    others = (step.images, step.keys, step.probe_keys)
    return separable_sum(partial(_class_loss, of), shared, step.parts, others, how=of.classes), {}


def _advance(of: _Matching, synthetic: SyntheticSet, state: DistributionState, batch: PyTree, key):
    pool_key, ascent_key = jax.random.split(key)
    if of.probe.optimizer is not None:
        state = _ascended(of, state, synthetic, _named(batch, "ascent"), ascent_key)
    if of.train_rows:
        synthetic = real_as_set(batch["train"], synthetic.labels.shape[-1])
    return state._replace(pool=of.pool.advance(state.pool, synthetic, pool_key))


def _embed(of: _Matching, state: DistributionState, images: jax.Array, key: jax.Array) -> jax.Array:
    return pool_features(of.network, of.pool, state.pool, images, key, chunk=of.chunk)


def _named(batch: PyTree, name: str) -> Batch:
    """The part of a batch that has this name, or all of one without names."""
    return batch[name] if isinstance(batch, dict) else batch


def _ingredients(
    of: _Matching, synthetic: SyntheticSet, state: DistributionState, real: Batch, key: jax.Array
) -> _Step:
    count = real.images.shape[0]
    draw_key, class_key, probe_key = jax.random.split(key, 3)
    variables = jax.lax.stop_gradient(of.pool.draw(state.pool, draw_key))
    if "batch_stats" in variables:
        require_all_classes(count, synthetic, "batch normalisation looks at all of them")
    parts = by_class(synthetic, count)
    return _Step(variables, parts, real.images, jax.random.split(class_key, count),
                 jax.random.split(probe_key, count))


def _class_loss(of: _Matching, shared, part: SyntheticSet, others) -> jax.Array:
    """The loss of one class."""
    variables, probe_params, weight = shared
    images, key, probe_key = others
    pair = _class_pair(of, variables, part, images, key)
    return _value(of, pair, of.probe.draw(probe_params, probe_key), weight)


def _value(of: _Matching, pair, drawn: PyTree, weight: PyTree) -> jax.Array:
    """The loss of one class from what is kept of its images."""
    real, synthetic, (logits, labels) = pair
    total = of.scale * of.discrepancy.compare(real, synthetic, drawn)
    if of.supervision is not None:
        entropies = optax.losses.softmax_cross_entropy(logits, labels)
        total = total + weight * jnp.mean(entropies)
    return total


def _class_pair(of: _Matching, variables: PyTree, part: SyntheticSet, images: jax.Array, key):
    """What is kept of one class's real and synthetic images, and the latter's class scores."""
    draw_key, rows_key = jax.random.split(key)
    params = of.augmentation.draw(draw_key, 1)
    part = at_most(part, rows_key, of.most)

    def kept(x):
        outputs = of.network.apply(variables, of.augmentation.apply(params, x))
        return of.discrepancy.collect(outputs), outputs.logits

    synthetic, logits = in_chunks(kept, part.images, size=of.chunk)
    real = _kept_of_real(of, variables, images, params)
    return real, _reduced(of, synthetic), (logits, part.labels)


def _kept_of_real(of: _Matching, variables: PyTree, images: jax.Array, params: PyTree) -> PyTree:
    """What is kept of one class's real images, or its mean where that is all that is compared."""

    def kept(x):
        return of.discrepancy.collect(of.network.apply(variables, of.augmentation.apply(params, x)))

    each = mean_in_chunks if of.discrepancy.means else in_chunks
    return jax.lax.stop_gradient(each(kept, images, size=of.chunk))


def _reduced(of: _Matching, kept: PyTree) -> PyTree:
    """The mean over images, for a discrepancy of means."""
    if not of.discrepancy.means:
        return kept
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), kept)


def _joint_pairs(of: _Matching, step: _Step):
    """`_class_pair` of all classes with a network whose layers look at the whole batch."""

    def augmented(args):
        part, pixels, key = args
        draw_key, rows_key = jax.random.split(key)
        params = of.augmentation.draw(draw_key, 1)
        part = at_most(part, rows_key, of.most)
        part = part._replace(images=of.augmentation.apply(params, part.images))
        return part, of.augmentation.apply(params, pixels)

    def outputs(pixels) -> PyTree:
        flat = of.network.apply(step.variables, pixels.reshape(-1, *pixels.shape[2:]), True)
        kept = (of.discrepancy.collect(flat), flat.logits)
        return jax.tree.map(lambda x: x.reshape(*pixels.shape[:2], *x.shape[1:]), kept)

    reduced = jax.vmap(partial(_reduced, of))
    parts, images = map_over(augmented, (step.parts, step.images, step.keys), how=of.classes)
    real = jax.lax.stop_gradient(outputs(images)[0])
    synthetic, logits = outputs(parts.images)
    return reduced(real), reduced(synthetic), (logits, parts.labels)


def _ascended(
    of: _Matching, state: DistributionState, synthetic: SyntheticSet, real: Batch, key: jax.Array
) -> DistributionState:
    """The state after a step of the probe that makes the discrepancy of this batch larger."""
    step = _ingredients(of, synthetic, state, real, key)
    if "batch_stats" in step.variables:
        kept, made, _ = _joint_pairs(of, step)
    else:
        def pair(args):
            return _class_pair(of, step.variables, *args)[:2]

        kept, made = map_over(pair, (step.parts, step.images, step.keys), how=of.classes)
    kept, made = jax.lax.stop_gradient((kept, made))

    def negative(params):
        def one(args):
            r, m, k = args
            return of.discrepancy.compare(r, m, of.probe.draw(params, k))

        return -of.scale * jnp.sum(map_over(one, (kept, made, step.probe_keys), how=of.classes))

    grads = jax.grad(negative)(state.probe)
    updates, ascent = of.probe.optimizer.update(grads, state.ascent, state.probe)
    return state._replace(probe=optax.apply_updates(state.probe, updates), ascent=ascent)
