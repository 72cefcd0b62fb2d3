"""The distilled-set file, and its way out to other tools; arrays and trajectories on disk."""

from __future__ import annotations

from dd_jax.store.arrays import read_arrays, read_card, write_arrays
from dd_jax.store.checks import validate
from dd_jax.store.describe import summary
from dd_jax.store.export import EXPORTS, as_numpy, export, torch_snippet
from dd_jax.store.label_store import read_targets, write_label_store
from dd_jax.store.record import Cost, DistilledSet, LabelStore, Stored
from dd_jax.store.setfile import load, save
from dd_jax.store.trajectories import Trajectories, open_trajectories
from dd_jax.store.trajectory_file import write_expert
from dd_jax.store.view_file import ViewStore, open_views, read_views
from dd_jax.store.view_store import cost_with, replay

__all__ = [
    "EXPORTS",
    "Cost",
    "DistilledSet",
    "LabelStore",
    "Stored",
    "Trajectories",
    "ViewStore",
    "as_numpy",
    "cost_with",
    "export",
    "load",
    "open_trajectories",
    "open_views",
    "read_arrays",
    "read_card",
    "read_targets",
    "read_views",
    "replay",
    "save",
    "summary",
    "torch_snippet",
    "validate",
    "write_arrays",
    "write_expert",
    "write_label_store",
]
