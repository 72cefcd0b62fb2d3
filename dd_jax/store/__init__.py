"""The distilled-set file, and its way out to other tools."""

from __future__ import annotations

from dd_jax.store.export import EXPORTS, as_numpy, export, torch_snippet
from dd_jax.store.setfile import DistilledSet, cost_bytes, load, save, summary, validate
from dd_jax.store.trajectories import Trajectories, open_trajectories
from dd_jax.store.trajectory_file import write_expert

__all__ = [
    "EXPORTS",
    "DistilledSet",
    "Trajectories",
    "as_numpy",
    "cost_bytes",
    "export",
    "load",
    "open_trajectories",
    "save",
    "summary",
    "torch_snippet",
    "validate",
    "write_expert",
]
