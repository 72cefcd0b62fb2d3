"""Pictures of sets and of runs; matplotlib and Pillow are imported when something is drawn."""

from __future__ import annotations

from dd_jax.report.figures import curve
from dd_jax.report.grid import figure, grid, save_grid

__all__ = ["curve", "figure", "grid", "save_grid"]
