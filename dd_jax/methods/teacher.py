"""Networks that a method trains on the real images before it distils: narrow or official."""

from __future__ import annotations

from dd_jax import nets
from dd_jax.errors import unknown
from dd_jax.methods.record import default_depth
from dd_jax.types import DataSpec, Network

TEACHERS = ("resnet18", "convnet")


def teacher_network(name: str, spec: DataSpec, *, width: int) -> Network:
    """The teacher's architecture, with batch normalisation.

    Args:
      name: one of `TEACHERS`.
      spec: of the images.
      width: channels of the first stage.

    Raises:
      ConfigError: unknown teacher.
    """
    if name not in TEACHERS:
        raise unknown("teacher", name, TEACHERS)
    if name == "resnet18":
        return nets.resnet18(spec, width=width)
    return nets.convnet(spec, depth=default_depth(spec), width=width, norm="batch")
