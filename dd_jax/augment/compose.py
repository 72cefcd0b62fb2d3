"""Augmentations made of augmentations: none at all, all in order, or one of several."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from dd_jax.augment.checks import check_count, check_images, check_leading, check_shape
from dd_jax.errors import ConfigError
from dd_jax.types import Augmentation


def identity(shape: tuple[int, int, int] | None = None) -> Augmentation:
    """Returns the augmentation that leaves images as they are.

    Args:
      shape: (H, W, C) to insist on, or None to take images of any shape.

    Returns:
      An `Augmentation` whose params are an empty tuple.

    Raises:
      ConfigError: `shape` is not three integers of at least 1.

    Example:
      >>> nothing = identity()
      >>> nothing.apply(nothing.draw(jax.random.key(0), 1), jnp.ones((2, 4, 4, 1))).shape
      (2, 4, 4, 1)
    """
    shape = None if shape is None else check_shape(shape)

    def draw(key, count):
        check_count(count)
        return ()

    def apply(params, images):
        check_images(images, shape)
        return images

    return Augmentation(draw, apply)


def compose(*augmentations: Augmentation) -> Augmentation:
    """Returns the augmentation that applies all of them, the first one first.

    Args:
      *augmentations: any number; with none it is `identity()`.

    Returns:
      An `Augmentation` whose params are a tuple, one entry for each.

    Raises:
      ConfigError: an argument is not an `Augmentation`.

    Example:
      >>> both = compose(identity(), identity())
      >>> both.draw(jax.random.key(0), 1)
      ((), ())
    """
    _check_members(augmentations)
    if not augmentations:
        return identity()

    def draw(key, count):
        count = check_count(count)
        keys = jax.random.split(key, len(augmentations))
        return tuple(each.draw(own, count) for each, own in zip(augmentations, keys))

    def apply(params, images):
        for augmentation, own in zip(augmentations, params):
            images = augmentation.apply(own, images)
        return images

    return Augmentation(draw, apply)


def one_of(*augmentations: Augmentation) -> Augmentation:
    """Returns the augmentation that applies one of them, drawn uniformly once for a draw.

    All images of one `apply` share the choice even where `count` is the batch size; only the
    parameters of the chosen one are then per image. The choice is a `lax.switch`, so on its own
    or inside `lax.scan` just the chosen one runs. Under `vmap` over draws the switch becomes a
    select: every member runs on every image and all but one result is dropped.

    Args:
      *augmentations: at least one, all for the same image shape.

    Returns:
      An `Augmentation` whose params are (choice [count] int32, all of them equal, and a tuple
      with the params of every member).

    Raises:
      ConfigError: there is none, or an argument is not an `Augmentation`.

    Example:
      >>> choice, _ = one_of(identity(), identity()).draw(jax.random.key(0), 3)
      >>> choice.shape
      (3,)
    """
    _check_some(augmentations, "one_of")

    def draw(key, count):
        count = check_count(count)
        keys = jax.random.split(key, len(augmentations) + 1)
        # One uniform compiles faster than `randint`; the minimum guards its rounding up.
        u = jax.random.uniform(keys[0], (), jnp.float32) * len(augmentations)
        choice = jnp.minimum(jnp.floor(u).astype(jnp.int32), len(augmentations) - 1)
        members = tuple(each.draw(own, count) for each, own in zip(augmentations, keys[1:]))
        return jnp.broadcast_to(choice, (count,)), members

    def apply(params, images):
        choice, members = params
        check_images(images)
        choice = check_leading(choice, images, "choice")
        branches = [_branch(augmentation.apply, i) for i, augmentation in enumerate(augmentations)]
        return lax.switch(choice[0], branches, members, images)

    return Augmentation(draw, apply)


def one_per_image(*augmentations: Augmentation) -> Augmentation:
    """Returns the augmentation that applies one of them to each image, drawn uniformly each time.

    A draw of count 1 is shared by all images. Every member runs on every image and all but one
    result is dropped.

    Args:
      *augmentations: at least one, all for the same image shape.

    Returns:
      An `Augmentation` whose params are (choice [count] int32, and a tuple with the params of every
      member).

    Raises:
      ConfigError: there is none, or an argument is not an `Augmentation`.

    Example:
      >>> choice, _ = one_per_image(identity(), identity()).draw(jax.random.key(0), 32)
      >>> sorted(set(choice.tolist()))
      [0, 1]
    """
    _check_some(augmentations, "one_per_image")

    def draw(key, count):
        count = check_count(count)
        keys = jax.random.split(key, len(augmentations) + 1)
        choice = jax.random.randint(keys[0], (count,), 0, len(augmentations), jnp.int32)
        return choice, tuple(each.draw(own, count) for each, own in zip(augmentations, keys[1:]))

    def apply(params, images):
        choice, members = params
        check_images(images)
        chosen = check_leading(choice, images, "choice").reshape(-1, 1, 1, 1)
        found = images
        for position, (augmentation, own) in enumerate(zip(augmentations, members)):
            found = jnp.where(chosen == position, augmentation.apply(own, images), found)
        return found

    return Augmentation(draw, apply)


def _branch(apply, position: int):
    """The application of one member, as a function of the params of all of them."""
    return lambda members, images: apply(members[position], images)


def _check_some(augmentations: tuple, name: str) -> None:
    _check_members(augmentations)
    if not augmentations:
        raise ConfigError(f"{name} has no augmentation to choose from",
                          fix="pass at least one, or use identity()")


def _check_members(augmentations: tuple) -> None:
    for position, each in enumerate(augmentations):
        if not isinstance(each, Augmentation):
            raise ConfigError(
                f"argument {position} is {type(each).__name__}, expected an Augmentation",
                fix="call the factory first, for example dsa(shape) and not dsa",
            )
