"""The one picture that a set of overlapping patches was cut from."""

from __future__ import annotations

import pathlib

import numpy as np

from dd_jax.errors import ConfigError
from dd_jax.report.grid import save_grid
from dd_jax.store.atomic import PathLike
from dd_jax.store.record import DistilledSet
from dd_jax.synthetic import poster_image


def is_poster(distilled: DistilledSet) -> bool:
    """Whether a set is stored as a poster."""
    return distilled.stored is not None and distilled.stored.kind == "poster"


def save_poster(path: PathLike, distilled: DistilledSet, *, scale: int = 6) -> pathlib.Path:
    """Writes a set's poster as a PNG file.

    Args:
      path: of the file.
      distilled: a set of `synthetic.poster`.
      scale: side of a pixel.

    Returns:
      The path.

    Raises:
      ConfigError: a set that is stored in another way.
    """
    if not is_poster(distilled):
        raise ConfigError("the set is not stored as a poster", fix="call report.save_grid")
    sizes = {name: distilled.stored.arguments[name] for name in ("shape", "patches")}
    picture = poster_image(np.asarray(distilled.synthetic.images), distilled.normaliser, **sizes)
    return save_grid(path, picture[None], scale=scale)
