"""Weights, scales and sizes that cannot be are refused when the part is built, by name."""

from __future__ import annotations

import math

import pytest

from dd_jax import nets, objectives, pools
from dd_jax.errors import ConfigError, require_at_least_zero
from dd_jax.types import DataSpec

SPEC = DataSpec("toy", (8, 8, 1), 2, ("a", "b"))
NETWORK = nets.convnet(SPEC, depth=1, width=2)


def matching(**options):
    return objectives.distribution_matching(NETWORK, pools.fresh_pool(NETWORK),
                                            objectives.mean_features(), **options)


def plateau(**options):
    return pools.plateau_pool(NETWORK, **{**dict(max_uses=5, max_epochs=5, window=5), **options})


def layers(pool, **options):
    return objectives.layer_matching(NETWORK, pool, **{"weights": (1.0,), **options})


CASES = {
    "attention-weight": (lambda: objectives.attention(weight=math.nan), "weight is nan"),
    "scale": (lambda: matching(scale=-1.0), r"scale is -1\.0"),
    "scale-inf": (lambda: matching(scale=math.inf), "scale is inf"),
    "max_uses": (lambda: plateau(max_uses=4), "max_uses is 4, expected an integer of at least 5"),
    "still": (lambda: plateau(still=-0.1), r"still is -0\.1"),
    "moved": (lambda: plateau(moved=math.nan), "moved is nan"),
    "alpha": (lambda: objectives.characteristic_function(
        objectives.normal_frequencies(4), alpha=-0.5), r"alpha is -0\.5"),
    "tap": (lambda: layers(pools.fresh_pool(NETWORK), weights=(math.inf,)),
            r"weights\[0\] is inf"),
    "feature_weight": (lambda: layers(pools.fresh_pool(NETWORK), feature_weight="2"),
                       "feature_weight is '2'"),
    "measured-without-rows": (
        lambda: layers(plateau()),
        "measure_size is 0, and the pool looks at real images.*measure_size=128"),
    "rows-without-measuring": (
        lambda: layers(pools.fresh_pool(NETWORK), measure_size=4),
        "measure_size is 4, and the pool looks at no real images.*measure_size=0"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_is_refused_by_name(case):
    build, said = CASES[case]
    with pytest.raises(ConfigError, match=said):
        build()


def test_what_can_be_is_taken():
    plateau(still=0, moved=0.0)
    matching(scale=0.0)
    layers(plateau(), weights=(0,), feature_weight=0, discrimination=0.0, measure_size=4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e-9, True, "0.1", None])
def test_only_finite_numbers_of_at_least_zero(value):
    with pytest.raises(ConfigError, match=r"pool width is .*pass width=0\.1"):
        require_at_least_zero("pool width", value)
