"""Optimizers that act on pixels in [0, 1] while the parameters are images in model space."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dd_jax.data import Normaliser, grey
from dd_jax.errors import ConfigError


def in_pixel_space(
    optimizer: optax.GradientTransformation, std: jax.Array, mean: jax.Array | float = 0.0
) -> optax.GradientTransformation:
    """The optimizer as it would act on x where the parameters are z = (x - mean) / std.

    dL/dx = dL/dz / std, and a step of x by u is one of z by u / std. An optimizer that looks at the
    parameters, for weight decay, sees x.

    Args:
      optimizer: any.
      std, mean: [C], of the normaliser; the mean matters for weight decay only.

    Returns:
      An optax transformation for a tree of images [M, H, W, C].

    Example:
      >>> halved = in_pixel_space(optax.sgd(1.0), jnp.array([2.0]))
      >>> updates, _ = halved.update(jnp.ones((1, 1, 1, 1)), halved.init(jnp.ones((1, 1, 1, 1))))
      >>> updates.item()
      -0.25
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def divided(tree):
        return jax.tree.map(lambda u: u / std, tree)

    def pixels(params):
        return None if params is None else jax.tree.map(lambda z: z * std + mean, params)

    def update(updates, state, params=None, **extra):
        updates, state = optimizer.update(divided(updates), state, pixels(params), **extra)
        return divided(updates), state

    return optax.GradientTransformationExtraArgs(lambda z: optimizer.init(pixels(z)), update)


def kept_between(low: jax.Array, high: jax.Array) -> optax.GradientTransformation:
    """Cuts every update so that the parameters stay in low..high; the last one of a chain.

    A bound of 0 is kept exactly, any other up to the rounding of `projected`.

    Args:
      low, high: what broadcasts to the parameters, such as black and white in model space.

    Returns:
      An optax transformation.

    Raises:
      ConfigError: when it is called without the parameters.

    Example:
      >>> kept = kept_between(0.0, 1.0)
      >>> updates, _ = kept.update(jnp.array(3.0), kept.init(jnp.array(0.5)), jnp.array(0.5))
      >>> updates.item()
      0.5
    """

    return projected("kept_between", lambda z: jnp.clip(z, low, high))


def projected(name: str, onto: Callable[[jax.Array], jax.Array]) -> optax.GradientTransformation:
    """Changes every update u of p so that it leads to onto(p + u); the last one of a chain.

    An update is a difference: added to p, it may miss onto(p + u) by a rounding, unless that is 0.

    Args:
      name: of the transformation, for the error.
      onto: an array -> the nearest one that is allowed.

    Raises:
      ConfigError: when it is called without the parameters.

    Example:
      >>> whole = projected("whole", jnp.round)
      >>> whole.update(jnp.array(0.75), whole.init(jnp.array(1.0)), jnp.array(1.0))[0].item()
      1.0
    """

    def update(updates, params):
        if params is None:
            raise ConfigError(f"{name} got no parameters", fix="call update with params")
        return jax.tree.map(lambda u, p: onto(p + u) - p, updates, params)

    return optax.stateless(update)


def within_range(
    optimizer: optax.GradientTransformation, normaliser: Normaliser
) -> optax.GradientTransformation:
    """The optimizer as it would act on pixels, which stay between black and white.

    Args:
      optimizer: any; it sees pixels in [0, 1] as parameters.
      normaliser: "none" or "standardise", from stored images to model space.

    Returns:
      An optax transformation for images [M, H, W, C] in model space.
    """
    black, white = (grey(normaliser, level) for level in (0.0, 1.0))
    return optax.chain(in_pixel_space(optimizer, normaliser.std, normaliser.mean),
                       kept_between(black, white))
