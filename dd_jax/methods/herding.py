"""Herding: the mean of the chosen images' features follows the mean of all (Welling, ICML 2009).

Differs from the code that tables are made with (DeepCore): it takes the image that is farthest from
what is missing, and here it is the nearest one, as the method says.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfFeatures


class Herding(OfFeatures):
    """Settings of herding, those in `OfFeatures`."""
