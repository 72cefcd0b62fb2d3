"""Kernel ridge regression with many random networks' features predicts the real labels.

  f(x) = sqrt(2 / (n F)) [f_1(x), ..., f_n(x), sqrt(0.01 n F / 2)],   f_i(x) of length F
  k(x, x') = f(x) . f(x') = 2 / (n F) sum_i f_i(x) . f_i(x') + 0.01
  P = k_ts (k_ss + mu I)^{-1} Y_s,   mu = ridge * tr(k_ss) / M
  L = mean_b mean_k 1/2 (P - Y_t)^2             ("squared_error", centred one-hot targets)
  L = mean_b CE(softmax(exp(log_temperature) P), c)   ("platt", c the real class)

The n networks are drawn anew in every step and never trained; k approaches the kernel of an
infinitely wide network with a dense layer of weight variance 2 and bias variance 0.01 on top.

Source: Loo et al., Efficient Dataset Distillation using Random Feature Approximation, NeurIPS 2022.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.backend import chunk_size, in_chunks, map_over, on_cpu
from dd_jax.data import rows_uniform
from dd_jax.errors import require_whole, unknown
from dd_jax.objectives.matching import check_pool
from dd_jax.solvers import check_ridge, fit_features
from dd_jax.synthetic import targets
from dd_jax.types import Batch, Network, Objective, Pool, PyTree, RealData, SyntheticSet

RIDGE_LOSSES = ("squared_error", "platt")
_WEIGHT_VARIANCE, _BIAS_VARIANCE = 2.0, 0.01  # of the dense layer on the features
_LARGEST_CHUNK = 512  # images that all networks embed together on an accelerator


class _Regression(NamedTuple):
    """What predictions are linear in: `heads` [n, F, K], `bias` [K], and the [] log-temperature."""

    heads: jax.Array
    bias: jax.Array
    log_temperature: jax.Array


def _each_loss(name: str, predictions: jax.Array, labels: jax.Array, log_temperature: jax.Array):
    """[b] losses of predictions [b, K] against classes [b]."""
    if name == "platt":
        logits = jnp.exp(log_temperature) * predictions
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    wanted = targets(labels, predictions.shape[-1], kind="centred")
    return 0.5 * jnp.mean((predictions - wanted) ** 2, axis=-1)


def _padded_chunks(batch: Batch, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images, labels and weights [chunks, size, ...]; rows of weight zero fill the last chunk."""
    total = batch.labels.shape[0]
    extra = -total % size
    weights = jnp.ones((total,), batch.images.dtype)

    def cut(x):
        if extra:
            x = jnp.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(-1, size, *x.shape[1:])

    return jax.tree.map(cut, (batch.images, batch.labels, weights))


def random_feature_ridge(
    network: Network,
    pool: Pool,
    *,
    networks: int = 8,
    batch_size: int = 5120,
    ridge: float = 5e-3,
    loss: str = "platt",
    mapping: str = "auto",
    chunk: int | None = None,
) -> Objective:
    """RFAD's objective: real labels regressed on features of many random networks, see the module.

    The real side is streamed: the loss depends on the set only through the regression's weights
    [n F, K], so value and derivative in them are summed chunk by chunk in one pass, and features of
    the whole batch are never held. First derivatives only.

    Args:
      network: the architecture; its `features` are the regression's inputs.
      pool: where networks come from (fresh, in RFAD); drawn from `networks` times in each step.
      networks: n, random networks in each step.
      batch_size: real images per step, drawn without replacement.
      ridge: the regulariser, times the mean of the kernel's diagonal.
      loss: one of `RIDGE_LOSSES`; "platt" uses the set's `log_temperature`, 0 where it is None.
      mapping: "map", "vmap" or "auto": one network after another, or all at once.
      chunk: images per forward pass; None for the backend's default (at most 512).

    Returns:
      An `Objective` over `Batch(images [batch_size, H, W, C], labels [batch_size])`; its state is
      the pool's.

    Raises:
      ConfigError: an unknown loss, a negative ridge, fewer than one network.

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> objective = random_feature_ridge(network, pools.fresh_pool(network), networks=2)
    """
    if loss not in RIDGE_LOSSES:
        raise unknown("loss", loss, RIDGE_LOSSES)
    check_pool(pool)
    require_whole("networks", networks, example=8)
    check_ridge(ridge, "trace_mean")

    regression = _Settings(network, pool, networks, batch_size, ridge, loss, mapping, chunk)
    return Objective(
        loss=partial(_loss, regression),
        init=pool.init,
        sample=partial(_sample, batch_size),
        advance=partial(_advance, pool),
    )


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The checked settings of one `random_feature_ridge`."""

    network: Network
    pool: Pool
    networks: int
    batch_size: int
    ridge: float
    loss: str
    mapping: str
    chunk: int | None


def _sample(batch_size: int, data: RealData, state: PyTree, key: jax.Array) -> jax.Array:
    return rows_uniform(data, key, batch_size)


def _loss(of: _Settings, synthetic: SyntheticSet, state: PyTree, batch: Batch, key: jax.Array):
    variables = map_over(lambda k: of.pool.draw(state, k), jax.random.split(key, of.networks),
                         how=of.mapping)
    variables = jax.lax.stop_gradient(variables)
    regression, info = _regression(of, synthetic, variables)
    fixed = jax.lax.stop_gradient(regression)
    (value, accuracy), slope = _real_side(of, fixed, variables, batch)
    # Adds exactly zero to the value, and the streamed derivative to the gradient.
    steps = jax.tree.map(lambda s, a, b: jnp.sum(s * (a - b)), slope, regression, fixed)
    metrics = {
        "accuracy": accuracy,
        "jitter_steps": info.jitter_steps,
        "condition": info.condition,
    }
    if of.loss == "platt":
        metrics["log_temperature"] = regression.log_temperature
    return value + sum(steps), metrics


def _advance(pool: Pool, synthetic: SyntheticSet, state: PyTree, batch: Batch, key: jax.Array):
    return pool.advance(state, synthetic, key)


def _regression(of: _Settings, synthetic: SyntheticSet, variables: PyTree):
    """The regression of the set's labels on its images' features, and how its system was solved."""
    features = _support_features(of, variables, synthetic.images)
    _, images, length = features.shape
    scale = math.sqrt(_WEIGHT_VARIANCE / (of.networks * length))
    offset = math.sqrt(_BIAS_VARIANCE)
    flat = scale * jnp.moveaxis(features, 0, 1).reshape(images, -1)
    constant = jnp.full((images, 1), offset, flat.dtype)
    fit = fit_features(jnp.concatenate([flat, constant], axis=1), synthetic.labels, ridge=of.ridge)
    log_temperature = synthetic.log_temperature
    if log_temperature is None:
        log_temperature = jnp.zeros((), flat.dtype)
    regression = _Regression(
        heads=scale * fit.weights[:-1].reshape(of.networks, length, -1),
        bias=offset * fit.weights[-1],
        log_temperature=log_temperature,
    )
    return regression, fit.info


def _support_features(of: _Settings, variables: PyTree, images: jax.Array) -> jax.Array:
    """Features [n, M, F]; each network's activations are computed again going backwards."""

    @jax.checkpoint
    def one(v):
        return in_chunks(lambda x: of.network.apply(v, x).features, images, size=of.chunk)

    return map_over(one, variables, how=of.mapping)


def _real_side(of: _Settings, regression: _Regression, variables: PyTree, batch: Batch):
    """Loss, accuracy and the loss's derivative in `regression`, in one pass over the batch."""
    total = batch.labels.shape[0]
    default = chunk_size(total) if on_cpu() else min(total, _LARGEST_CHUNK)

    def chunk_loss(regression, images, labels, weights):
        def one(args):
            v, head = args
            return jnp.matmul(of.network.apply(v, images).features, head, precision="highest")

        parts = map_over(one, (variables, regression.heads), how=of.mapping)
        predictions = jnp.sum(parts, axis=0) + regression.bias
        each = _each_loss(of.loss, predictions, labels, regression.log_temperature)
        correct = jnp.argmax(predictions, axis=-1) == labels
        return jnp.sum(weights * each) / total, jnp.sum(weights * correct) / total

    def add(sums, part):
        return jax.tree.map(jnp.add, sums, with_derivative(regression, *part)), None

    with_derivative = jax.value_and_grad(chunk_loss, has_aux=True)
    parts = _padded_chunks(batch, min(of.chunk or default, total))
    shapes = jax.eval_shape(with_derivative, regression, *jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(add, zeros, parts)[0]
