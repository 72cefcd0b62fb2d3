"""One run and its folder: lock, checkpoints, stop, progress, metrics."""
