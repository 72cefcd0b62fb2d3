"""Losses of a network's outputs against what it is told, one number for each image."""
