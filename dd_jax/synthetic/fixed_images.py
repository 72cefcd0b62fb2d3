"""A parameterization of which only labels are learned."""

from __future__ import annotations

import jax

from dd_jax.types import Parameterization, PyTree, SyntheticSet


def fixed_images(head: Parameterization) -> Parameterization:
    """The parameterization with its images as constants: no derivative, no update.

    Args:
      head: one whose params have a leaf "images", such as `pixels`.

    Returns:
      A `Parameterization` with the same params.

    Example:
      >>> import jax.numpy as jnp
      >>> from dd_jax.synthetic import pixels
      >>> head = fixed_images(pixels(labels="learned"))
      >>> start = SyntheticSet(jnp.zeros((2, 3, 3, 1)), jnp.eye(2))
      >>> head.groups(head.init(jax.random.key(0), start))
      {'images': 'constant', 'labels': 'labels'}
    """

    def decode(params: PyTree, key: jax.Array) -> SyntheticSet:
        return head.decode({**params, "images": jax.lax.stop_gradient(params["images"])}, key)

    def groups(params: PyTree) -> PyTree:
        return {**head.groups(params), "images": "constant"}

    return head._replace(decode=decode, groups=groups)
