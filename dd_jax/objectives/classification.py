"""Networks of a pool recognise the synthetic images.

  L = sum_c mean_{s in S_c} CE(f(A_c(s)), y_s)

f is a network of the pool, A_c one random augmentation of class c. No real image takes part.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dd_jax.augment import identity
from dd_jax.backend import check_mapping
from dd_jax.errors import require_whole
from dd_jax.objectives.matching import at_most, by_class, check_pool, pool_features
from dd_jax.solvers.separable import separable_sum
from dd_jax.train.built import require_built
from dd_jax.types import Augmentation, Batch, Network, Objective, Pool, RealData, SyntheticSet


def classification(
    network: Network,
    pool: Pool,
    *,
    augmentation: Augmentation | None = None,
    most: int | None = None,
    classes: str = "auto",
) -> Objective:
    """Cross-entropy of the synthetic set under the pool's networks, see the module.

    Memory is that of one class, unless classes are vmapped. Labels are targets of cross-entropy:
    probabilities. Batch normalisation uses the network's running statistics.

    Args:
      network: the architecture.
      pool: where the network of each step comes from, such as a bank's trained ends.
      augmentation: drawn once per class and step.
      most: a class with more synthetic images is subsampled to this many in each step.
      classes: "map", "vmap" or "auto": one class after another, or all at once.

    Returns:
      An `Objective` over {"one_of_each": Batch(images [K, 1, H, W, C], labels [K, 1])}, always the
      first real image of each class: its leading axis says of how many classes `loss` is given the
      images, all of them or, in `class_by_class`, one. Nothing else of the batch is looked at.

    Raises:
      ConfigError: unknown mapping, `most` below 1, or a factory in the place of what it returns.

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> objective = classification(network, pools.fresh_pool(network))
    """
    check_pool(pool)
    require_built("augmentation", augmentation, Augmentation, optional=True)
    require_whole("most", 1 if most is None else most, example=128)
    check_mapping(classes)
    augmentation = augmentation or identity()

    def class_loss(variables, synthetic: SyntheticSet, key: jax.Array) -> jax.Array:
        draw_key, rows_key = jax.random.split(key)
        synthetic = at_most(synthetic, rows_key, most)
        images = augmentation.apply(augmentation.draw(draw_key, 1), synthetic.images)
        logits = network.apply(variables, images).logits
        return jnp.mean(optax.losses.softmax_cross_entropy(logits, synthetic.labels))

    def init(key: jax.Array, synthetic: SyntheticSet):
        return pool.init(key, synthetic)

    def sample(data: RealData, state, key: jax.Array) -> jax.Array:
        return {"one_of_each": data.class_rows[:, :1]}

    def loss(synthetic: SyntheticSet, state, batch: dict[str, Batch], key: jax.Array):
        parts = batch["one_of_each"].labels.shape[0]
        draw_key, class_key = jax.random.split(key)
        variables = jax.lax.stop_gradient(pool.draw(state, draw_key))
        keys = jax.random.split(class_key, parts)
        learned = by_class(synthetic, parts)
        return separable_sum(class_loss, variables, learned, keys, how=classes), {}

    def advance(synthetic: SyntheticSet, state, batch: dict[str, Batch], key: jax.Array):
        return pool.advance(state, synthetic, key)

    def embed(state, images: jax.Array, key: jax.Array) -> jax.Array:
        return pool_features(network, pool, state, images, key)

    return Objective(loss=loss, init=init, sample=sample, advance=advance, embed=embed, real=False)
