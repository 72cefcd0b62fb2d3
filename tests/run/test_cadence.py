"""How often a run writes: refused before anything else, and what it answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.run.cadence import Cadence


@pytest.mark.parametrize("name,values", [
    ("log_every", [0, -1, 2.5, True, None, "10", math.nan]),
    ("save_every", [0, -1, 2.5, True, "10", math.inf]),
    ("save_seconds", [-1, -math.inf, math.nan, True, None, "60"]),
])
def test_what_cannot_be_is_refused_by_name(name, values):
    for value in values:
        with pytest.raises(ConfigError, match=f"{name} is .*pass {name}="):
            Cadence(**{name: value})


def test_what_is_due():
    often = Cadence(log_every=np.int64(3), save_seconds=0, save_every=4)
    assert [s for s in range(1, 10) if often.logs(s)] == [3, 6, 9]
    assert [s for s in range(1, 10) if often.saves(s, seconds=0.0)] == [4, 8]
    assert often.saves(5, seconds=1e-3)
    assert [often.steps_until_save(s, at_most=3) for s in (0, 2, 4, 7)] == [3, 2, 3, 1]
    rare = Cadence(save_seconds=math.inf)
    assert not rare.saves(10, seconds=1e9) and rare.steps_until_save(5, at_most=95) == 95
