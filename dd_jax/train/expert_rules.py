"""How an expert turns a batch into the gradient that its optimizer follows.

An expert's trajectory is what a student is asked to reproduce, so experts are trained for smooth
trajectories as well as for accuracy: in flat valleys, or with a network that is nearly 1-Lipschitz.

Sources: AngusDujw/FTD-distillation; Du et al., Minimizing the Accumulated Trajectory Error to
Improve Dataset Distillation, CVPR 2023. shenjiyuan123/AST-Alignment-with-Smooth-Expert; Shen et
al., Efficient Dataset Distillation through Alignment with Smooth and High-Quality Expert
Trajectories, 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_at_least_zero
from dd_jax.labels.losses import mean_squared_error
from dd_jax.train.supervised import batch_gradient
from dd_jax.types import Network, Outputs, PyTree

_SAFE = 1e-12
_RAMP = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)


class ExpertRule(NamedTuple):
    """A rule of an expert's gradient, as pure functions.

    Attributes:
      gradient: (network, epoch [] int32, traced) -> what a batch gives in that epoch: (variables,
        images, labels, weights, plain_images) -> (gradient, variables), see `train.fit`.
      settings: JSON-able, "name" and numbers; experts of different settings do not mix.
    """

    gradient: Callable[[Network, jax.Array], Callable[..., tuple[PyTree, PyTree]]]
    settings: Mapping[str, Any]


def sharpness_aware(rho: float = 0.01, a: float = 0.3) -> ExpertRule:
    """Flat trajectories: the gradient at an adversarial neighbour, less a part of the first one.

    With g0 the gradient at theta and g1 the one at theta + e, on the same augmented batch,

      e = rho theta^2 g0 / (|| |theta| g0 ||_2 + 1e-12)       (elementwise products)
      v = g0 - <g0, g1> / ||g1||^2 g1                          (orthogonal to g1)
      g = g1 - a v,

    followed from theta itself. a = 0 is adaptive sharpness-aware minimisation. Where g1 is 0, all
    of g0 is orthogonal to it. Costs two gradients a step.

    Args:
      rho: radius of the neighbourhood, relative to each parameter.
      a: the part of v that is taken away; 0.3 or 1 in the paper.

    Returns:
      An `ExpertRule`.

    Raises:
      ConfigError: a negative or infinite number.

    Example:
      >>> sharpness_aware(a=1.0).settings
      {'name': 'sharpness_aware', 'rho': 0.01, 'a': 1.0}

    Source: AngusDujw/FTD-distillation; the update is GSAM of Zhuang et al., ICLR 2022.
    """
    require_at_least_zero("rho", rho, example=0.01)
    require_at_least_zero("a", a, example=0.3)

    def rule(network: Network, epoch: jax.Array):
        def gradient(variables, images, labels, weights, plain_images):
            def at(params):
                moved = {**variables, "params": params}
                return batch_gradient(network, moved, images, labels, weights=weights,
                                      train=True)[0]

            params = variables["params"]
            first = at(params)
            weighted = jax.tree.map(jnp.multiply, params, first)
            scale = rho / (jnp.sqrt(_dot(weighted, weighted)) + _SAFE)
            second = at(jax.tree.map(lambda p, g: p + scale * p**2 * g, params, first))
            square = _dot(second, second)
            along = jnp.where(square > 0, _dot(first, second) / jnp.where(square > 0, square, 1), 0)
            flat = jax.tree.map(lambda g0, g1: g1 - a * (g0 - along * g1), first, second)
            return flat, variables

        return gradient

    return ExpertRule(rule, {"name": "sharpness_aware", "rho": rho, "a": a})


def smooth(penalty: float = 2.0, ramp: Sequence[float] = _RAMP) -> ExpertRule:
    """Smooth experts: a loss that comes in slowly and a network that is nearly 1-Lipschitz.

    The gradient of

      ramp[epoch] CE + penalty mean_{image, pixel} (||r||_2 - 1)^2,   r = d sum_c f_c(x) / d x,

    with the norm over channels, x the images before augmentation, and a factor of 1 after the
    ramp's end. It is of second order through the network.

    Args:
      penalty: weight of the second term.
      ramp: factors on the cross-entropy in the first epochs.

    Returns:
      An `ExpertRule`.

    Raises:
      ConfigError: a negative or infinite number.

    Example:
      >>> smooth(ramp=(0.5,)).settings
      {'name': 'smooth', 'penalty': 2.0, 'ramp': [0.5]}

    Source: shenjiyuan123/AST-Alignment-with-Smooth-Expert.
    """
    require_at_least_zero("penalty", penalty, example=2.0)
    if isinstance(ramp, (str, bytes)) or not isinstance(ramp, Sequence):
        raise ConfigError(f"ramp is {ramp!r}, expected a sequence of factors",
                          fix="pass ramp=(0.5, 0.75), or ramp=() for none")
    for i, factor in enumerate(ramp):
        require_at_least_zero(f"ramp[{i}]", factor, example=1.0)
    factors = tuple(float(factor) for factor in ramp)

    def rule(network: Network, epoch: jax.Array):
        norms = _input_gradient_norms(network)
        factor = jnp.asarray((*factors, 1.0), jnp.float32)[jnp.minimum(epoch, len(factors))]

        def gradient(variables, images, labels, weights, plain_images):
            fit, variables = batch_gradient(network, variables, images, labels, weights=weights,
                                            train=True)
            pixels = plain_images.shape[1] * plain_images.shape[2]
            # Its squared error averages over the pixels as the other one's does over classes.
            rough, _ = batch_gradient(norms, variables, plain_images,
                                      jnp.ones((plain_images.shape[0], pixels)), weights=weights,
                                      loss=mean_squared_error)
            return jax.tree.map(lambda f, r: factor * f + penalty * r, fit, rough), variables

        return gradient

    return ExpertRule(rule, {"name": "smooth", "penalty": penalty, "ramp": list(factors)})


def _input_gradient_norms(network: Network) -> Network:
    """A network whose outputs are the norms ||r|| of its images' pixels, [B, H * W]."""

    def apply(variables: PyTree, images: jax.Array, train: bool = False) -> Outputs:
        def total(x):
            return jnp.sum(network.apply(variables, x, False).logits)

        square = jnp.sum(jax.grad(total)(images) ** 2, axis=-1).reshape(images.shape[0], -1)
        # A pixel that the network does not see would have an infinite derivative of the root.
        seen = square > 0
        norms = jnp.where(seen, jnp.sqrt(jnp.where(seen, square, 1.0)), 0.0)
        return Outputs(norms, norms)

    return Network(init=network.init, apply=apply, name="input_gradient_norms")


def _dot(a: PyTree, b: PyTree) -> jax.Array:
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return sum(jax.tree.leaves(products))
