"""Version strings that make a result repeatable."""

from __future__ import annotations

import importlib.metadata
import platform

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions of this library and of what its results depend on.

    Example:
      >>> sorted(versions())
      ['dd_jax', 'flax', 'jax', 'jaxlib', 'numpy', 'optax', 'python']
    """
    found = {"dd_jax": __version__, "python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "optax", "numpy"):
        found[package] = importlib.metadata.version(package)
    return found
