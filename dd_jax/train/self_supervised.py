"""Teachers trained without labels: two random views of an image should have one representation.

  Barlow Twins   L = sum_i (1 - C_ii)^2 + w sum_{i != j} C_ij^2,   C = A^T B / n,
                 with A, B [n, D] the projections of the two views, standardised over the batch.
  SimSiam        L = -1/2 (cos(h(A), sg B) + cos(h(B), sg A)) with a predictor h.

Source: Zbontar et al., Barlow Twins, ICML 2021; Chen and He, Exploring Simple Siamese
Representation Learning, CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.backend import in_chunks
from dd_jax.data import gather, normalise, require_on_device, rows_uniform
from dd_jax.data.normalise import Normaliser
from dd_jax.errors import ConfigError, unknown
from dd_jax.types import Augmentation, Network, PyTree, RealData

SELF_SUPERVISED_LOSSES = ("barlow_twins", "simsiam")
_NETWORK, _PROJECTOR, _PREDICTOR, _ROWS, _VIEWS = range(5)


class SelfSupervised(NamedTuple):
    """A trained teacher.

    Attributes:
      variables: of its network, without the projector.
      losses: [steps] float32, one value for each step.
    """

    variables: PyTree
    losses: jax.Array


def _standardise(x: jax.Array) -> jax.Array:
    """Each column with mean 0 and variance 1 over the batch."""
    centred = x - jnp.mean(x, axis=0)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=0) + 1e-5)


def barlow_twins(a: jax.Array, b: jax.Array, *, off_diagonal: float = 5e-3) -> jax.Array:
    """Distance of the cross-correlation of two views from the identity, see the module.

    Args:
      a, b: [n, D] projections of the two views of n images.
      off_diagonal: w, the weight of what lies off the diagonal.

    Returns:
      [] float; 0 where the views agree and the dimensions are uncorrelated.

    Example:
      >>> a = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
      >>> float(barlow_twins(a, a)) < 1e-6
      True
    """
    correlation = jnp.matmul(_standardise(a).T, _standardise(b), precision="highest") / a.shape[0]
    diagonal = jnp.diagonal(correlation)
    off = jnp.sum(correlation**2) - jnp.sum(diagonal**2)
    return jnp.sum((1.0 - diagonal) ** 2) + off_diagonal * off


def simsiam(a: jax.Array, b: jax.Array, predicted_a: jax.Array, predicted_b: jax.Array):
    """Minus the mean cosine between each view's prediction and the other view, held constant.

    Args:
      a, b: [n, D] projections of the two views.
      predicted_a, predicted_b: [n, D] what the predictor makes of them.

    Returns:
      [] float in -1..1.

    Example:
      >>> a = jnp.array([[1.0, 0.0]])
      >>> float(simsiam(a, a, a, a))
      -1.0
    """
    def cosine(p, z):
        z = jax.lax.stop_gradient(z)
        scale = jnp.sum(p**2, axis=-1) * jnp.sum(z**2, axis=-1)
        return jnp.mean(jnp.sum(p * z, axis=-1) * jax.lax.rsqrt(scale + 1e-12))

    return -0.5 * (cosine(predicted_a, b) + cosine(predicted_b, a))


def _mlp_init(key: jax.Array, widths: Sequence[int]) -> list[dict]:
    """Dense layers between the given widths; hidden ones with scale and shift."""
    layers = []
    for i, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:])):
        kernel = jax.random.normal(jax.random.fold_in(key, i), (fan_in, fan_out)) * fan_in**-0.5
        layers.append({"kernel": kernel, "scale": jnp.ones(fan_out), "bias": jnp.zeros(fan_out)})
    layers[-1] = {"kernel": layers[-1]["kernel"]}
    return layers


def _mlp_apply(layers: list[dict], x: jax.Array) -> jax.Array:
    """Batch-normalised ReLU layers and a linear one; batch statistics always, it never tests."""
    for layer in layers[:-1]:
        x = _standardise(x @ layer["kernel"]) * layer["scale"] + layer["bias"]
        x = jax.nn.relu(x)
    return x @ layers[-1]["kernel"]


def train_self_supervised(
    network: Network,
    data: RealData,
    *,
    normaliser: Normaliser,
    augmentation: Augmentation,
    key: jax.Array,
    steps: int,
    batch_size: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    loss: str = "barlow_twins",
    projector: Sequence[int] = (1024, 1024),
) -> SelfSupervised:
    """Trains a network on images without their labels; its `features` become the representation.

    One compiled loop: real images are drawn by index on the device, two views of each are made,
    and a projector on top of the features carries the loss.

    Args:
      network: the backbone; its head is left untrained.
      data: the real set, on the device; labels are not looked at.
      normaliser: from stored images to model space.
      augmentation: makes a view; one draw per image and view, see `views`.
      key: PRNG key.
      steps: optimizer steps.
      batch_size: images per step, at least 2, drawn without replacement.
      optimizer: Adam, 1e-3 decayed to zero by a cosine, by default.
      loss: one of `SELF_SUPERVISED_LOSSES`.
      projector: widths of the projector's layers; SimSiam adds a predictor of a quarter's width.

    Returns:
      A `SelfSupervised`.

    Raises:
      ConfigError: an unknown loss, a size that cannot be, or images kept on the host.

    Example:
      >>> from dd_jax import augment, data, nets
      >>> real = data.from_arrays(np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)),
      ...                         np.arange(8) % 2)
      >>> trained = train_self_supervised(
      ...     nets.mlp(real.spec, width=4, depth=2), real, normaliser=data.standardise(real),
      ...     augmentation=augment.views((8, 8, 1)), key=jax.random.key(0), steps=2, batch_size=4,
      ...     projector=(8,))
      >>> trained.losses.shape
      (2,)
    """
    _check(data, steps, batch_size, loss, projector)
    optimizer = optimizer or optax.adam(optax.cosine_decay_schedule(1e-3, steps))

    def representation(variables, images):
        # Batch statistics need the whole batch at once.
        if "batch_stats" in variables:
            outputs = network.apply(variables, images, True)
            return outputs.features, outputs.batch_stats
        return in_chunks(lambda x: network.apply(variables, x, True).features, images), {}

    def objective(params, variables, pair):
        current = {**variables, "params": params["network"]}
        features, batch_stats = representation(current, pair)
        if batch_stats:
            current["batch_stats"] = batch_stats
        projected = _mlp_apply(params["projector"], features)
        a, b = jnp.split(projected, 2)
        if loss == "barlow_twins":
            return barlow_twins(a, b), current
        a, b = _standardise(a), _standardise(b)
        predicted = (_mlp_apply(params["predictor"], x) for x in (a, b))
        return simsiam(a, b, *predicted), current

    def init(key):
        variables = network.init(jax.random.fold_in(key, _NETWORK))
        shape = jax.eval_shape(network.apply, variables, jnp.zeros((1, *data.spec.shape))).features
        width = projector[-1]
        params = {
            "network": variables["params"],
            "projector": _mlp_init(jax.random.fold_in(key, _PROJECTOR),
                                   (shape.shape[-1], *projector)),
        }
        if loss == "simsiam":
            params["predictor"] = _mlp_init(jax.random.fold_in(key, _PREDICTOR),
                                            (width, max(1, width // 4), width))
        return params, variables

    @jax.jit
    def run(data, normaliser, key):
        params, variables = init(key)

        def step(carry, i):
            params, variables, opt_state = carry
            rows_key, views_key = (jax.random.fold_in(jax.random.fold_in(key, use), i)
                                   for use in (_ROWS, _VIEWS))
            images, _ = gather(data, rows_uniform(data, rows_key, batch_size))
            images = normalise(normaliser, images)
            draw = augmentation.draw(views_key, 2 * batch_size)
            pair = augmentation.apply(draw, jnp.concatenate([images, images]))
            (value, variables), grads = jax.value_and_grad(objective, has_aux=True)(
                params, variables, pair
            )
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), variables, opt_state), value

        start = (params, variables, optimizer.init(params))
        (params, variables, _), losses = jax.lax.scan(step, start, jnp.arange(steps))
        return SelfSupervised({**variables, "params": params["network"]}, losses)

    return run(data, normaliser, key)


def _check(data: RealData, steps: int, batch_size: int, loss: str, projector) -> None:
    if loss not in SELF_SUPERVISED_LOSSES:
        raise unknown("self-supervised loss", loss, SELF_SUPERVISED_LOSSES)
    count = data.labels.shape[0]
    for name, value, low, high in (("steps", steps, 1, None), ("batch_size", batch_size, 2, count),
                                   *(("projector width", w, 1, None) for w in projector)):
        wrong = isinstance(value, bool) or not isinstance(value, (int, np.integer))
        if wrong or value < low or (high is not None and value > high):
            bound = f"at least {low}" if high is None else f"in {low}..{high}"
            raise ConfigError(f"{name} is {value!r}, expected an integer {bound}",
                              fix="see the docstring for usual values")
    if not projector:
        raise ConfigError("projector has no layer", fix="pass for example projector=(1024, 1024)")
    require_on_device(data, "a teacher")
