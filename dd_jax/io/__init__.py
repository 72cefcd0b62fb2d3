"""The distilled-set file, and its way out to other tools."""

from __future__ import annotations

from dd_jax.io.export import EXPORTS, as_numpy, export, torch_snippet
from dd_jax.io.setfile import DistilledSet, cost_bytes, load, save, summary, validate

__all__ = [
    "EXPORTS",
    "DistilledSet",
    "as_numpy",
    "cost_bytes",
    "export",
    "load",
    "save",
    "summary",
    "torch_snippet",
    "validate",
]
