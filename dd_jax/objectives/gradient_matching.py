"""Gradients of a network's loss on real and on synthetic images agree.

  class-wise  L = sum_c D( g_c, s_c ),           g_c = grad_theta mean_{x in B_c} CE(f_theta(A_c x))
  jointly     L = D( mean_c g_c, mean_c s_c ),   s_c = grad_theta mean_{s in S_c} CE(f_theta(A_c s))

D is one of `gradient_distances`, A_c one augmentation draw for the real and the synthetic images of
class c, and theta comes from a pool. g is constant; the derivative through s is of second order.

Sources: Zhao, Mopuri and Bilen, Dataset Condensation with Gradient Matching, ICLR 2021 (class by
class); Lee et al., Dataset Condensation with Contrastive Signals, ICML 2022 (jointly).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from dd_jax.augment import identity
from dd_jax.backend import all_at_once, check_mapping, map_over, on_cpu
from dd_jax.errors import require_whole
from dd_jax.nets import with_batch_stats
from dd_jax.objectives.gradient_distances import distance_named
from dd_jax.objectives.matching import (
    at_most,
    by_class,
    check_pool,
    matched_rows,
    pool_features,
    real_as_set,
    require_all_classes,
    require_several_classes,
)
from dd_jax.solvers.separable import separable_sum
from dd_jax.synthetic import targets
from dd_jax.train.built import require_built
from dd_jax.train.supervised import batch_gradient
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

_STATISTICS_IMAGES = 16  # real images per class that batch normalisation is measured on
_AT_ONCE = 2560  # real images whose activations an accelerator holds: those of ten classes of 256


def gradient_matching(
    network: Network,
    pool: Pool,
    *,
    batch_size: int = 256,
    distance: str = "row_cosine",
    augmentation: Augmentation | None = None,
    class_wise: bool | Callable[[PyTree], jax.Array] = True,
    most: int | None = None,
    train_rows: int = 0,
    classes: str | int = "auto",
) -> Objective:
    """Gradient matching, see the module.

    Memory is that of one class, or of those that are vmapped together, whatever their number.
    Labels are targets of cross-entropy: probabilities. A network with batch normalisation is first
    run on 16 real images per class in training mode, then used with the running statistics.

    Args:
      network: the architecture.
      pool: where theta comes from, such as `pools.inner_trained_pool`.
      batch_size: real images per class and step.
      distance: a name in `gradient_distances.DISTANCES`.
      augmentation: drawn once per class and step, shared by real and synthetic images.
      class_wise: True, False (jointly), or a function of the pool's state that says which.
      most: a class with more synthetic images is subsampled to this many in each step.
      train_rows: the pool is trained on this many random real images instead of the synthetic ones.
      classes: "map", "vmap" or a number: one class after another, all at once, or so many together;
        "auto": one on a CPU, elsewhere as many as have about 2,560 real images.

    Returns:
      An `Objective` over `Batch(images [K, batch_size, H, W, C], labels [K, batch_size])`, or, with
      `train_rows`, over {"match": that, "train": Batch of [train_rows]}; its state is the pool's.

    Raises:
      ConfigError: if the distance or the mapping is unknown, a count is too small, or the pool
        looks at real images; from `init`: if there is one class only; from `loss`: if the distance
        is one of convolution weights and the network has none.

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> pool = pools.inner_trained_pool(network, uses=10, epochs=50)
      >>> objective = gradient_matching(network, pool, batch_size=16)
    """
    check_pool(pool)
    require_built("augmentation", augmentation, Augmentation, optional=True)
    for name, value in (("batch_size", batch_size), ("most", 1 if most is None else most)):
        require_whole(name, value)
    require_whole("train_rows", train_rows, least=0)
    check_mapping(classes)
    matching = _Matching(network, pool, augmentation or identity(), distance_named(distance),
                         batch_size, class_wise, most, train_rows, classes)
    return Objective(
        loss=partial(_loss, matching),
        init=partial(_init, pool),
        sample=partial(_sample, matching),
        advance=partial(_advance, matching),
        embed=partial(pool_features, network, pool),
    )


@dataclasses.dataclass(frozen=True)
class _Matching:
    """The checked settings of one `gradient_matching`."""

    network: Network
    pool: Pool
    augmentation: Augmentation
    distance: Callable[[PyTree, PyTree], jax.Array]
    batch_size: int
    class_wise: bool | Callable[[PyTree], jax.Array]
    most: int | None
    train_rows: int
    classes: str | int

    @property
    def together(self) -> str | int:
        """How classes are mapped, by the hardware where that is left open."""
        if self.classes != "auto" or on_cpu():
            return self.classes
        return max(1, _AT_ONCE // self.batch_size)


def _init(pool: Pool, key: jax.Array, synthetic: SyntheticSet) -> PyTree:
    require_several_classes(synthetic.labels.shape[-1],
                            "the cross-entropy of one is zero, and so is its gradient",
                            instead="match distributions, as method 'dm' does")
    return pool.init(key, synthetic)


def _sample(of: _Matching, data: RealData, state: PyTree, key: jax.Array) -> PyTree:
    return matched_rows(data, key, of.batch_size, of.train_rows)


def _loss(of: _Matching, synthetic: SyntheticSet, state: PyTree, batch: PyTree, key: jax.Array):
    matched = batch["match"] if of.train_rows else batch
    num_classes = matched.images.shape[0]
    if of.class_wise is not True:
        require_all_classes(num_classes, synthetic, "they are matched jointly")
    draw_key, class_key = jax.random.split(key)
    variables = _frozen(of.network, of.pool.draw(state, draw_key), matched, synthetic)
    variables = jax.lax.stop_gradient(variables)
    parts = by_class(synthetic, num_classes)
    others = (matched._replace(rows=None), jax.random.split(class_key, num_classes))

    def apart():
        return separable_sum(partial(_class_distance, of), variables, parts, others,
                             how=of.together)

    def together():
        return _joint_distance(of, variables, parts, others)

    if callable(of.class_wise):
        total = jax.lax.cond(of.class_wise(state), apart, together)
    else:
        total = apart() if of.class_wise else together()
    return total, {}


def _advance(of: _Matching, synthetic: SyntheticSet, state: PyTree, batch: PyTree, key: jax.Array):
    if of.train_rows:
        synthetic = real_as_set(batch["train"], synthetic.labels.shape[-1])
    return of.pool.advance(state, synthetic, key)


def _class_distance(of: _Matching, variables: PyTree, synthetic: SyntheticSet, others) -> jax.Array:
    """The distance of one class's two gradients."""
    return of.distance(*_class_gradients(of, variables, synthetic, *others))


def _joint_distance(of: _Matching, variables: PyTree, parts: SyntheticSet, others) -> jax.Array:
    """The distance of the two gradients that are averaged over classes."""

    def pair(part):
        return _class_gradients(of, variables, part[0], *part[1])

    return of.distance(*_mean_over(pair, (parts, others), how=of.together))


def _class_gradients(
    of: _Matching, variables: PyTree, synthetic: SyntheticSet, real: Batch, key: jax.Array
):
    """Gradients of one class: constant on its real images, and on its synthetic ones."""
    draw_key, rows_key = jax.random.split(key)
    params = of.augmentation.draw(draw_key, 1)
    num_classes = synthetic.labels.shape[-1]
    synthetic = at_most(synthetic, rows_key, of.most)

    def gradient(images, labels):
        return batch_gradient(of.network, variables, of.augmentation.apply(params, images),
                              labels)[0]

    wanted = gradient(real.images, targets(real.labels, num_classes, kind="one_hot"))
    return jax.lax.stop_gradient(wanted), gradient(synthetic.images, synthetic.labels)


def _frozen(network: Network, variables: PyTree, batch: Batch, synthetic: SyntheticSet) -> PyTree:
    """The network with the running statistics of some real images."""
    if "batch_stats" not in variables:
        return variables
    require_all_classes(batch.images.shape[0], synthetic,
                        "batch normalisation looks at all of them")
    images = batch.images[:, :_STATISTICS_IMAGES]
    images = images.reshape(-1, *images.shape[2:])
    return with_batch_stats(variables, network.apply(variables, images, True))


def _mean_over(fn: Callable, xs: PyTree, *, how: str | int) -> PyTree:
    """The mean of fn over the leading axis of xs, with the memory of a group of its elements.

    Groups are of the largest size that divides their number and is not above the one asked for.
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    if all_at_once(how):
        return jax.tree.map(lambda y: jnp.mean(y, axis=0), map_over(fn, xs, how="vmap"))
    most = 1 if isinstance(how, str) else min(how, count)
    group = max(size for size in range(1, most + 1) if count % size == 0)

    @jax.checkpoint
    def scaled(x):
        if group == 1:  # a switch runs one branch only where it is not vmapped
            return jax.tree.map(lambda y: y / count, fn(jax.tree.map(lambda x: x[0], x)))
        return jax.tree.map(lambda y: jnp.sum(y, axis=0) / count, jax.vmap(fn)(x))

    def add(total, x):
        return jax.tree.map(jnp.add, total, scaled(x)), None

    xs = jax.tree.map(lambda x: x.reshape(count // group, group, *x.shape[1:]), xs)
    shapes = jax.eval_shape(lambda xs: scaled(jax.tree.map(lambda x: x[0], xs)), xs)
    zeros = jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), shapes)
    return jax.lax.scan(add, zeros, xs)[0]
