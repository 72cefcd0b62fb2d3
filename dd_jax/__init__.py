"""dd_jax: dataset distillation as compositions of pure functions.

Importing the package loads nothing: each part is imported when it is first used, so that a
command-line error needs no JAX and no device is touched.

Example:
  >>> import dd_jax as dd
  >>> data = dd.data.load("embedded")
  >>> recipe = dd.methods.recipe("frepo", data, protocol="cpu", ipc=1, steps=100)
  >>> distilled = dd.distill(recipe, data, key=0)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import Any

from dd_jax.versions import __version__

_MODULES = ("augment", "backend", "contrib", "data", "distill", "errors", "evaluate", "kernels",
            "labels", "methods", "nets", "objectives", "pools", "report", "run", "select",
            "solvers", "store", "synthetic", "train", "transforms", "types")
_NAMES = {
    "distillation": "dd_jax.distill",
    "Plan": "dd_jax.distill",
    "Recipe": "dd_jax.distill",
    "Objective": "dd_jax.types",
    "RealData": "dd_jax.types",
    "SyntheticSet": "dd_jax.types",
    "Split": "dd_jax.types",
    "weighted_sum": "dd_jax.objectives",
    "save": "dd_jax.store",
    "load": "dd_jax.store",
}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"dd_jax.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'dd_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
