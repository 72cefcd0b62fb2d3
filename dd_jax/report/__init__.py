"""Pictures of sets and of runs; matplotlib and Pillow are imported when something is drawn."""

from __future__ import annotations

from dd_jax.report.figures import curve
from dd_jax.report.grid import figure, grid, save_grid
from dd_jax.report.poster import is_poster, save_poster

__all__ = ["curve", "figure", "grid", "is_poster", "save_grid", "save_poster"]
