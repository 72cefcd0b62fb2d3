"""The user's cache folder, for compiled programs."""

from __future__ import annotations

import os
import pathlib


def cache_folder() -> pathlib.Path:
    """DD_JAX_CACHE, or dd_jax in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("DD_JAX_CACHE") or pathlib.Path(base) / "dd_jax")
