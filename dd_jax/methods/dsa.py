"""DSA: Dataset Condensation with Differentiable Siamese Augmentation (Zhao and Bilen, ICML 2021).

DC where the real and the synthetic images of a class get the same random augmentation, and networks
are trained, inside and for the test, with it.

Differs from the official code: as DC does, see `methods.dc`.
"""

from __future__ import annotations

from dd_jax.methods import dc
from dd_jax.methods.frame import Start, Views, Whole


class DSA(dc.DC):
    """Settings of DSA: those of DC with an augmentation; the defaults are the official ones."""

    start: Start = "real"
    augmentation: Views = "dsa"
    evaluation_epochs: Whole | None = 1001

    presets = dc.DC.presets
