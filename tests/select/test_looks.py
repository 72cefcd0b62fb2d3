"""Looks at all images, block by block, from the device and from the host."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.data import normalise, standardise
from dd_jax.select import looks
from tests.laws import members


@pytest.mark.parametrize("block", [16, 24, 64])
@pytest.mark.parametrize("on_host", [False, True])
def test_features_are_those_of_the_whole_set(block, on_host, monkeypatch):
    monkeypatch.setattr(looks, "block_rows", lambda data: block)
    toy, network = members.toy_data(), nets.convnet(members.SPEC, depth=1, width=2)
    variables, normaliser = network.init(jax.random.key(0)), standardise(toy)
    images = normalise(normaliser, toy.images)
    data = dataclasses.replace(toy, images=np.asarray(toy.images)) if on_host else toy
    found = looks.network_features(network, variables, data, normaliser)
    assert isinstance(found, np.ndarray) and found.shape == (64, looks.feature_width(network, toy))
    np.testing.assert_allclose(found, network.apply(variables, images).features, rtol=1e-4,
                               atol=1e-5)
    pixels = looks.pixel_features(data, normaliser)
    np.testing.assert_allclose(pixels, images.reshape(64, -1), rtol=1e-6)
