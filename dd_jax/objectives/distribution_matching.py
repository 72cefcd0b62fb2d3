"""Features of each class's real and synthetic images agree under networks of a pool.

  L = scale * sum_c d( f(A_c B_c), f(A_c S_c) )  +  sum_c w(pool) mean_{s in S_c} CE(f_theta(A_c s))

d is a `Discrepancy`, A_c one augmentation draw for the real images B_c and the synthetic images S_c
of class c. Features of real images are constants; the second term is there where `supervision` is.

Sources: Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023; the
discrepancies name their own.
"""

from __future__ import annotations

from collections.abc import Callable
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
    Network,
    Objective,
    Outputs,
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
      `train_rows`, over {"match": that, "train": Batch of [train_rows]}; its state is a
      `DistributionState`.

    Raises:
      ConfigError: unknown mapping, a count that cannot be, a factory in the place of what it
        returns.

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
    augmentation = augmentation or identity()
    probe = discrepancy.probe or _NO_PROBE
    collect = discrepancy.collect

    def kept_of_real(variables, images: jax.Array, params: PyTree) -> PyTree:
        def kept(x):
            return collect(network.apply(variables, augmentation.apply(params, x)))

        each = mean_in_chunks if discrepancy.means else in_chunks
        return jax.lax.stop_gradient(each(kept, images, size=chunk))

    def reduced(kept: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), kept) if discrepancy.means else kept

    def class_pair(variables, part: SyntheticSet, images: jax.Array, key: jax.Array):
        """What is kept of one class's real and synthetic images, and the latter's class scores."""
        draw_key, rows_key = jax.random.split(key)
        params = augmentation.draw(draw_key, 1)
        part = at_most(part, rows_key, most)

        def kept(x):
            outputs = network.apply(variables, augmentation.apply(params, x))
            return collect(outputs), outputs.logits

        synthetic, logits = in_chunks(kept, part.images, size=chunk)
        real = kept_of_real(variables, images, params)
        return real, reduced(synthetic), (logits, part.labels)

    def joint_pairs(variables, parts: SyntheticSet, images: jax.Array, keys: jax.Array):
        """The same for all classes with a network whose layers look at the whole batch."""

        def augmented(args):
            part, pixels, key = args
            draw_key, rows_key = jax.random.split(key)
            params = augmentation.draw(draw_key, 1)
            part = at_most(part, rows_key, most)
            part = part._replace(images=augmentation.apply(params, part.images))
            return part, augmentation.apply(params, pixels)

        def outputs(pixels) -> Outputs:
            flat = network.apply(variables, pixels.reshape(-1, *pixels.shape[2:]), True)
            kept = (collect(flat), flat.logits)
            return jax.tree.map(lambda x: x.reshape(*pixels.shape[:2], *x.shape[1:]), kept)

        parts, images = map_over(augmented, (parts, images, keys), how=classes)
        real = jax.lax.stop_gradient(outputs(images)[0])
        synthetic, logits = outputs(parts.images)
        return (jax.vmap(reduced)(real), jax.vmap(reduced)(synthetic), (logits, parts.labels))

    def value(pair, looked: PyTree, weight: PyTree) -> jax.Array:
        real, synthetic, (logits, labels) = pair
        total = scale * discrepancy.compare(real, synthetic, looked)
        if supervision is not None:
            entropies = optax.losses.softmax_cross_entropy(logits, labels)
            total = total + weight * jnp.mean(entropies)
        return total

    def class_loss(shared, part: SyntheticSet, others) -> jax.Array:
        variables, probe_params, weight = shared
        images, key, probe_key = others
        pair = class_pair(variables, part, images, key)
        return value(pair, probe.draw(probe_params, probe_key), weight)

    def ingredients(synthetic: SyntheticSet, state: DistributionState, batch: PyTree, key):
        images = (batch["match"] if train_rows else batch).images
        count = images.shape[0]
        draw_key, class_key, probe_key = jax.random.split(key, 3)
        variables = jax.lax.stop_gradient(pool.draw(state.pool, draw_key))
        if "batch_stats" in variables:
            require_all_classes(count, synthetic, "batch normalisation looks at all of them")
        parts = by_class(synthetic, count)
        return (variables, parts, images, jax.random.split(class_key, count),
                jax.random.split(probe_key, count))

    def init(key: jax.Array, synthetic: SyntheticSet) -> DistributionState:
        pool_key, probe_key = jax.random.split(key)
        state = pool.init(pool_key, synthetic)
        if discrepancy.probe is None:
            return DistributionState(state, (), ())

        def kept(images):
            return collect(network.apply(pool.draw(state, pool_key), images))

        params = probe.init(probe_key, jax.eval_shape(kept, synthetic.images[:1]))
        ascent = () if probe.optimizer is None else probe.optimizer.init(params)
        return DistributionState(state, params, ascent)

    def sample(data: RealData, state: DistributionState, key: jax.Array) -> PyTree:
        return matched_rows(data, key, batch_size, train_rows)

    def loss(synthetic: SyntheticSet, state: DistributionState, batch: PyTree, key: jax.Array):
        variables, parts, images, keys, probe_keys = ingredients(synthetic, state, batch, key)
        weight = () if supervision is None else jax.lax.stop_gradient(supervision(state.pool))
        if "batch_stats" in variables:
            pairs = joint_pairs(variables, parts, images, keys)
            params = jax.lax.stop_gradient(state.probe)
            looked = map_over(lambda k: probe.draw(params, k), probe_keys, how=classes)
            return jnp.sum(jax.vmap(lambda *of: value(*of, weight))(pairs, looked)), {}
        shared = (variables, jax.lax.stop_gradient(state.probe), weight)
        return separable_sum(class_loss, shared, parts, (images, keys, probe_keys), how=classes), {}

    def looked_harder(state: DistributionState, synthetic: SyntheticSet, batch: PyTree, key):
        """The probe after a step that makes the discrepancy of this set and batch larger."""
        variables, parts, images, keys, probe_keys = ingredients(synthetic, state, batch, key)
        if "batch_stats" in variables:
            real, made, _ = joint_pairs(variables, parts, images, keys)
        else:
            def pair(args):
                return class_pair(variables, *args)[:2]

            real, made = map_over(pair, (parts, images, keys), how=classes)
        real, made = jax.lax.stop_gradient((real, made))

        def negative(params):
            def one(args):
                r, m, k = args
                return discrepancy.compare(r, m, probe.draw(params, k))

            return -scale * jnp.sum(map_over(one, (real, made, probe_keys), how=classes))

        grads = jax.grad(negative)(state.probe)
        updates, ascent = probe.optimizer.update(grads, state.ascent, state.probe)
        return state._replace(probe=optax.apply_updates(state.probe, updates), ascent=ascent)

    def advance(synthetic: SyntheticSet, state: DistributionState, batch: PyTree, key: jax.Array):
        pool_key, ascent_key = jax.random.split(key)
        if probe.optimizer is not None:
            state = looked_harder(state, synthetic, batch, ascent_key)
        if train_rows:
            synthetic = real_as_set(batch["train"], synthetic.labels.shape[-1])
        return state._replace(pool=pool.advance(state.pool, synthetic, pool_key))

    def embed(state: DistributionState, images: jax.Array, key: jax.Array) -> jax.Array:
        return pool_features(network, pool, state.pool, images, key, chunk=chunk)

    return Objective(init=init, sample=sample, loss=loss, advance=advance, embed=embed)
