"""DSAC: DCC with DSA's augmentation (Lee et al., ICML 2022).

Differs from the official code: as DCC does, see `methods.dcc`.
"""

from __future__ import annotations

from dd_jax.methods import dcc
from dd_jax.methods.frame import Views, Whole


class DSAC(dcc.DCC):
    """Settings of DSAC: those of DCC with DSA's augmentation."""

    augmentation: Views = "dsa"
    evaluation_epochs: Whole | None = 1001

    presets = dcc.DCC.presets
