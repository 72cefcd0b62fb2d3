"""Random real images, as many of every class: what every other choice has to beat."""

from __future__ import annotations

from dd_jax.methods.families.selection import Selection
from dd_jax.select import Selector, selectors


class Random(Selection):
    """Settings of random images, those in `Selection`; `choice_seed` draws others."""

    least_classes = 1
    presets = {"official": {}, "cpu": {0: dict(evaluation_width=32, evaluation_epochs=None)}}

    def selector(self) -> Selector:
        return selectors.random()
