"""Facility location: every image is like one of the chosen (Wei, Iyer and Bilmes, ICML 2015).

Likeness is (1 + cosine) / 2 of features; the choice is greedy, by bounds that are looked at again.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfFeatures


class FacilityLocation(OfFeatures):
    """Settings of facility location, those in `OfFeatures`."""
