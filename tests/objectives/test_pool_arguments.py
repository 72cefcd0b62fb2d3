"""Objectives that draw networks from a pool refuse what is none, and one that asks for more."""

from __future__ import annotations

import pytest

from dd_jax import augment, objectives, pools
from dd_jax.errors import ConfigError
from tests.laws import members

NETWORK = members.one_convolution(4)
WITH_POOL = {
    "feature_ridge": lambda pool: objectives.feature_ridge(NETWORK, pool),
    "representation_ridge": lambda pool: objectives.representation_ridge(
        NETWORK, pool, lambda images: images),
    "random_feature_ridge": lambda pool: objectives.random_feature_ridge(NETWORK, pool),
    "linearised_ridge": lambda pool: objectives.linearised_ridge(NETWORK, pool),
    "distribution_matching": lambda pool: objectives.distribution_matching(
        NETWORK, pool, objectives.mean_features()),
    "gradient_matching": lambda pool: objectives.gradient_matching(NETWORK, pool),
    "classification": lambda pool: objectives.classification(NETWORK, pool),
}


@pytest.mark.parametrize("name", WITH_POOL)
@pytest.mark.parametrize("pool,told", [
    (None, "pool is None, expected a Pool"),
    (pools.fresh_pool, "pool is fresh_pool, expected a Pool.*not the factory"),
    (pools.fresh_pool(NETWORK)._replace(watches=True), "looks at real images"),
])
def test_what_is_no_pool_for_it_is_refused(name, pool, told):
    WITH_POOL[name](pools.fresh_pool(NETWORK))
    with pytest.raises(ConfigError, match=told):
        WITH_POOL[name](pool)


@pytest.mark.parametrize("change,told", [
    ({"augmentation": augment.dsa}, "augmentation is dsa, expected an Augmentation"),
    ({"discrepancy": objectives.mean_features}, "discrepancy is mean_features, expected a Disc"),
])
def test_factories_are_refused(change, told):
    given = {"discrepancy": objectives.mean_features(), **change}
    with pytest.raises(ConfigError, match=told):
        objectives.distribution_matching(NETWORK, pools.fresh_pool(NETWORK), **given)
