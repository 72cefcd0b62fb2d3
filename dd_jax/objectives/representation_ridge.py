"""Kernel ridge regression predicts a teacher's representations of real images from the set's.

  P = F_t F_s^T (F_s F_s^T + mu I)^{-1} Z_s,   mu = ridge * sg tr(F_s F_s^T)
  L = mean over images and dimensions of (P - g(X_t))^2

F are the features of a network from a pool with a constant 1 appended, g is a fixed teacher, Z_s
are the representations of the synthetic images, which are learned with them. Real images are
augmented before both; nothing on their side is differentiated.

Source: Lee et al., Self-Supervised Dataset Distillation for Transfer Learning, ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.augment import identity
from dd_jax.backend import in_chunks
from dd_jax.data import rows_uniform
from dd_jax.errors import ConfigError
from dd_jax.objectives.matching import check_pool
from dd_jax.solvers import check_ridge, fit_features
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


def with_constant(features: jax.Array) -> jax.Array:
    """The features [B, P] with a column of ones after them, [B, P + 1]."""
    return jnp.concatenate([features, jnp.ones_like(features[:, :1])], axis=-1)


def representations(
    network: Network, variables: PyTree, *, chunk: int | None = None
) -> Callable[[jax.Array], jax.Array]:
    """A trained network as a teacher: images in model space -> its features, in evaluation mode.

    Args:
      network, variables: the trained network.
      chunk: images per forward pass; None for the backend's default.

    Returns:
      (images [B, H, W, C]) -> [B, R], constant for every derivative.
    """
    def teacher(images: jax.Array) -> jax.Array:
        found = in_chunks(lambda x: network.apply(variables, x).features, images, size=chunk)
        return jax.lax.stop_gradient(found)

    return teacher


def representation_ridge(
    network: Network,
    pool: Pool,
    teacher: Callable[[jax.Array], jax.Array],
    *,
    batch_size: int = 1024,
    ridge: float = 1e-6,
    mode: str = "trace_sum",
    augmentation: Augmentation | None = None,
    chunk: int | None = None,
) -> Objective:
    """KRR-ST's objective: a teacher's representations regressed on features, see the module.

    The regulariser's trace is held constant, so the gradient is exact for a given mu.

    Args:
      network: the architecture; its `features` are the regression's inputs.
      pool: where the network of each step comes from.
      teacher: images [B, H, W, C] in model space -> representations [B, R], where R is the length
        of the synthetic set's labels; see `representations`.
      batch_size: real images per step, drawn without replacement; their labels are not looked at.
      ridge, mode: the regulariser, see `solvers.fit_features`.
      augmentation: of the real images, one draw per image; none by default.
      chunk: images per forward pass; None for the backend's default.

    Returns:
      An `Objective` over `Batch(images [batch_size, H, W, C], labels)`; its state is the pool's.
      The metric `explained` is 1 - L / variance of the representations.

    Raises:
      ConfigError: a negative ridge, an unknown mode, or labels that are not R long.

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 8, ()), width=8)
      >>> teacher = representations(network, network.init(jax.random.key(0)))
      >>> objective = representation_ridge(network, pools.fresh_pool(network), teacher)
    """
    check_pool(pool)
    check_ridge(ridge, mode)
    augmentation = augmentation or identity()

    def features(variables, images):
        raw = in_chunks(lambda x: network.apply(variables, x).features, images, size=chunk)
        return with_constant(raw)

    def init(key: jax.Array, synthetic: SyntheticSet):
        return pool.init(key, synthetic)

    def sample(data: RealData, state, key: jax.Array) -> jax.Array:
        return rows_uniform(data, key, batch_size)

    def loss(synthetic: SyntheticSet, state, batch: Batch, key: jax.Array):
        draw_key, augment_key = jax.random.split(key)
        variables = jax.lax.stop_gradient(pool.draw(state, draw_key))
        drawn = augmentation.draw(augment_key, batch.images.shape[0])
        images = augmentation.apply(drawn, batch.images)
        real = jax.lax.stop_gradient(features(variables, images))
        wanted = jax.lax.stop_gradient(teacher(images))
        if wanted.shape[-1] != synthetic.labels.shape[-1]:
            raise ConfigError(
                f"the set's labels are {synthetic.labels.shape[-1]} long, the teacher's "
                f"representations {wanted.shape[-1]}",
                fix="start the labels as the teacher's representations of the start images",
            )
        fit = fit_features(features(variables, synthetic.images), synthetic.labels,
                           ridge=ridge, mode=mode, stop_trace=True)
        predictions = jnp.matmul(real, fit.weights, precision="highest")
        value = jnp.mean((predictions - wanted) ** 2)
        spread = jnp.mean((wanted - jnp.mean(wanted, axis=0)) ** 2)
        return value, {
            "explained": 1.0 - value / (spread + jnp.finfo(jnp.float32).tiny),
            "jitter_steps": fit.info.jitter_steps,
            "condition": fit.info.condition,
        }

    def advance(synthetic: SyntheticSet, state, batch: Batch, key: jax.Array):
        return pool.advance(state, synthetic, key)

    return Objective(init=init, sample=sample, loss=loss, advance=advance)
