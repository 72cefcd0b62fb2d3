"""Kernel ridge regression on a network's features predicts the real labels from the synthetic set.

  P = F_t W,   W = F_s^T (F_s F_s^T + mu I)^{-1} Y_s,   mu = ridge * tr(F_s F_s^T) / n_s
  L = mean_b 1/2 sum_k (P - Y_t)^2  -  mean_i min(top1(Y_s[i]) - top2(Y_s[i]), 1/K)

F are the penultimate features of a network from a pool, in evaluation mode. The second term keeps
the margin of learned labels; it is constant for fixed ones.

Source: Zhou et al., Dataset Distillation using Neural Feature Regression, NeurIPS 2022.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.data import rows_uniform
from dd_jax.objectives.matching import check_pool
from dd_jax.solvers import check_ridge, fit_features
from dd_jax.synthetic import targets, with_mirrors
from dd_jax.types import Batch, Network, Objective, Pool, RealData, SyntheticSet


def label_margin(labels: jax.Array, cap: float) -> jax.Array:
    """Mean over rows of min(largest - second largest entry, cap).

    Args:
      labels: [M, K].
      cap: the margin that is enough.

    Returns:
      [] float.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(label_margin(jnp.array([[0.9, 0.1], [0.5, 0.4]]), 0.5)), 3)
      0.3
    """
    top = jax.lax.top_k(labels, 2)[0]
    return jnp.mean(jnp.minimum(top[:, 0] - top[:, 1], cap))


def feature_ridge(
    network: Network,
    pool: Pool,
    *,
    batch_size: int = 1024,
    ridge: float = 1e-6,
    mode: str = "trace_mean",
    flip: bool = False,
    margin: bool = True,
    chunk: int | None = None,
) -> Objective:
    """FRePo's objective: real labels regressed on features of the synthetic set, see the module.

    Args:
      network: the architecture; its `features` are the regression's inputs.
      pool: where the network of each step comes from.
      batch_size: real images per step, drawn without replacement.
      ridge, mode: the regulariser, see `solvers.fit_features`.
      flip: whether the set is extended by its mirror images before the regression.
      margin: whether the label margin is part of the loss.
      chunk: images per forward pass; None for the backend's default.

    Returns:
      An `Objective` over `Batch(images [batch_size, H, W, C], labels [batch_size])`; its state is
      the pool's. Real targets are centred one-hot vectors.

    Raises:
      ConfigError: if the ridge is negative, the mode unknown, or the pool not a `Pool`.

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> objective = feature_ridge(network, pools.fresh_pool(network), batch_size=16)
    """
    check_pool(pool)
    check_ridge(ridge, mode)

    def features(variables, images):
        return in_chunks(lambda x: network.apply(variables, x).features, images, size=chunk)

    def init(key: jax.Array, synthetic: SyntheticSet):
        return pool.init(key, synthetic)

    def sample(data: RealData, state, key: jax.Array) -> jax.Array:
        return rows_uniform(data, key, batch_size)

    def loss(synthetic: SyntheticSet, state, batch: Batch, key: jax.Array):
        num_classes = synthetic.labels.shape[-1]
        variables = jax.lax.stop_gradient(pool.draw(state, key))
        real = jax.lax.stop_gradient(features(variables, batch.images))
        support = with_mirrors(synthetic) if flip else synthetic
        fit = fit_features(
            features(variables, support.images), support.labels, ridge=ridge, mode=mode
        )
        predictions = jnp.matmul(real, fit.weights, precision="highest")
        wanted = targets(batch.labels, num_classes, kind="centred")
        kernel_loss = 0.5 * jnp.mean(jnp.sum((predictions - wanted) ** 2, axis=-1))
        total = kernel_loss
        metrics = {
            "kernel_loss": kernel_loss,
            "accuracy": jnp.mean(jnp.argmax(predictions, -1) == batch.labels),
            "jitter_steps": fit.info.jitter_steps,
            "condition": fit.info.condition,
        }
        if margin:
            kept = label_margin(synthetic.labels, 1.0 / num_classes)
            total = total - kept
            metrics["label_margin"] = kept
        return total, metrics

    def advance(synthetic: SyntheticSet, state, batch: Batch, key: jax.Array):
        return pool.advance(state, synthetic, key)

    def embed(state, images: jax.Array, key: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(features(pool.draw(state, key), images))

    return Objective(init=init, sample=sample, loss=loss, advance=advance, embed=embed)
