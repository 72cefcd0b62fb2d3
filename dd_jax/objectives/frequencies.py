"""Frequencies at which characteristic functions are compared: drawn at random, or by a network.

  normal          t_k ~ N(0, I)
  scale mixture   t_k = sigma_j * z_k,  z_k ~ N(0, I),  sigma = psi(noise) [J, P],  j = k mod J
  tiled           t_k = psi(noise)_j

psi is three times (linear, batch normalisation, activation) of width P, trained to make the
discrepancy large.

Source: Wang et al., Dataset Distillation with Neural Characteristic Function: A Minmax
Perspective, CVPR 2025; the tiled form is that of its released code, gszfwsb/NCFM.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError, require_whole, unknown
from dd_jax.nets.layers import initialisers
from dd_jax.objectives.discrepancy import Probe
from dd_jax.types import PyTree

SAMPLERS = ("scale_mixture", "tiled")


def normal_frequencies(count: int) -> Probe:
    """Standard normal frequencies, fresh for every class and step.

    Args:
      count: frequencies per draw.

    Returns:
      A `Probe` whose draws are [count, P] in the dtype of the features [n, P]; its params are the
      standard deviation of every coordinate, [P] ones.

    Raises:
      ConfigError: count below 1.

    Example:
      >>> probe = normal_frequencies(5)
      >>> probe.draw(probe.init(jax.random.key(0), jnp.ones((2, 3))), jax.random.key(1)).shape
      (5, 3)
    """
    require_whole("count", count, example=4096)

    def init(key: jax.Array, like: jax.Array) -> jax.Array:
        return jnp.ones(like.shape[-1:], like.dtype)

    def draw(scale: jax.Array, key: jax.Array) -> jax.Array:
        return scale * jax.random.normal(key, (count, *scale.shape), scale.dtype)

    return Probe(init=init, draw=draw)


class SamplingNetwork(nn.Module):
    """Noise [J, P] -> [J, P] in -1..1; batch normalisation always by the statistics of the noise.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        kernel_init, bias_init = initialisers("torch", width)
        for i in range(3):
            x = nn.Dense(width, kernel_init=kernel_init, bias_init=bias_init, name=f"dense{i}")(x)
            # Over few rows a variance in one pass, E x^2 - (E x)^2, loses its digits in float32.
            x = nn.BatchNorm(use_running_average=False, use_fast_variance=False, name=f"norm{i}")(x)
            x = nn.leaky_relu(x, 0.2) if i < 2 else jnp.tanh(x)
        return x


def learned_frequencies(
    count: int,
    *,
    components: int | None = None,
    optimizer: optax.GradientTransformation | None = None,
    kind: str = "scale_mixture",
) -> Probe:
    """Frequencies from a sampling network that is trained against the synthetic set.

    Args:
      count: frequencies per draw.
      components: J, rows of noise that go through the network, at least 2; count / 16 by default.
      optimizer: ascends; SGD of rate 1e-3 and momentum 0.5 by default.
      kind: "scale_mixture" (the paper's) or "tiled" (the released code's).

    Returns:
      A `Probe` whose draws are [count, P]; or [components, P] for "tiled", whose frequencies are
      count / components copies of these, so that means over them are the same.

    Raises:
      ConfigError: if the kind is unknown, if `count` or `components` is below 2, or if components
        are tiled and their number does not divide the count.

    Example:
      >>> probe = learned_frequencies(32)
      >>> params = probe.init(jax.random.key(0), jnp.ones((7, 3)))
      >>> probe.draw(params, jax.random.key(1)).shape
      (32, 3)
    """
    if kind not in SAMPLERS:
        raise unknown("kind of learned frequencies", kind, SAMPLERS)
    require_whole("count", count, least=2, example=1024)
    rows = max(2, count // 16) if components is None else components
    # Normalised over a single row, all noise is the same.
    require_whole("components", rows, least=2, example=count // 16)
    if rows > count or (kind == "tiled" and count % rows):
        raise ConfigError(f"components is {rows}, expected a divisor of the count {count}",
                          fix="pass a count that 16 divides, or other components")
    module = SamplingNetwork()

    def init(key: jax.Array, like: jax.Array) -> PyTree:
        params = module.init(key, jnp.zeros((rows, like.shape[-1])))["params"]
        return jax.tree.map(lambda p: p.astype(like.dtype), params)

    def draw(params: PyTree, key: jax.Array) -> jax.Array:
        noise_key, normal_key = jax.random.split(key)
        bias = params["dense0"]["bias"]
        noise = jax.random.normal(noise_key, (rows, bias.shape[0]), bias.dtype)
        # Running statistics are made and thrown away: psi is only ever used in training mode.
        drawn, _ = module.apply({"params": params}, noise, mutable=["batch_stats"])
        if kind == "tiled":
            return drawn
        scales = drawn[jnp.arange(count) % rows]
        return scales * jax.random.normal(normal_key, scales.shape, scales.dtype)

    return Probe(init=init, draw=draw, optimizer=optimizer or optax.sgd(1e-3, momentum=0.5))
