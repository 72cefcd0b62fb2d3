"""Presets of FRePo, RCIG, RFAD and KIP: how sets are tested, and that the tests can follow."""

from __future__ import annotations

import numpy as np
import pytest

from dd_jax import methods
from dd_jax.data import from_arrays
from dd_jax.evaluate.build import build_network
from dd_jax.evaluate.optimizers import rate_schedule

# Tests of fewer than 1,000 steps: what three minutes on two cores allow.
SHORT = {(name, "cpu", ipc) for name in ("frepo", "rcig", "kip") for ipc in (10, 50)}


def data(channels, classes=10):
    images = np.random.default_rng(0).integers(0, 256, (classes * 50, 1, 1, channels), np.uint8)
    images = np.broadcast_to(images, (classes * 50, 16, 16, channels))
    return from_arrays(images, np.arange(classes * 50) % classes)


@pytest.fixture(scope="module")
def grey():
    return data(1)


@pytest.fixture(scope="module")
def colour():
    return data(3, 2)


def evaluation(name, data, **changes):
    return methods.recipe(name, data, normaliser="standardise", **changes).evaluation


@pytest.mark.parametrize("name,mirrored,plain", [
    ("frepo", "frepo", "frepo_digits"), ("rcig", "rcig", "rcig_digits"),
])
def test_grey_images_are_not_mirrored(name, mirrored, plain, grey, colour):
    assert evaluation(name, colour).views.augmentation == mirrored
    assert evaluation(name, grey).views.augmentation == plain


def summed_rate(protocol, steps):
    schedule = rate_schedule(protocol.optimizer, steps, 1)
    return float(np.sum(schedule(np.arange(steps))))


def steps_of(protocol, images):
    return protocol.plan.epochs * -(-images // min(images, protocol.plan.batch_size))


@pytest.mark.parametrize("name", ["frepo", "rcig"])
@pytest.mark.parametrize("preset", ["official", "cpu"])
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_networks_of_a_test_go_as_far_as_those_of_the_pool(name, preset, ipc, grey):
    settings = methods.preset(name, preset, ipc)
    protocol = evaluation(name, grey, protocol=preset, ipc=ipc)
    assert protocol.optimizer.learning_rate == settings.evaluation_rate
    steps = steps_of(protocol, 10 * ipc)
    assert summed_rate(protocol, steps) >= settings.pool_rate * settings.max_age
    assert steps >= 1000 or (name, preset, ipc) in SHORT
    if name == "rcig":  # how old what is averaged is, in the mean
        ages = np.arange(settings.steps)
        weights = settings.average**ages
        assert np.sum(weights * ages) / np.sum(weights) <= 0.1 * settings.steps


@pytest.mark.parametrize("name", ["rfad", "kip"])
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_cpu_tests_are_long_and_at_their_own_rate(name, ipc, grey):
    protocol = evaluation(name, grey, protocol="cpu", ipc=ipc)
    rate = {"rfad": 0.03, "kip": 1.2e-3}[name]
    assert protocol.optimizer.learning_rate == rate
    assert steps_of(protocol, 10 * ipc) >= 1000 or (name, "cpu", ipc) in SHORT


@pytest.mark.parametrize("preset", ["official", "cpu"])
def test_rfad_keeps_the_best_set_of_validations(preset, grey):
    settings = methods.preset("rfad", preset, 10)
    best = methods.recipe("rfad", grey, protocol=preset, ipc=10).best_so_far
    assert best.every == settings.validate_every and settings.steps >= 8 * best.every
    assert (settings.validation_networks, settings.validation_images) == {
        "official": (16, None), "cpu": (8, 2000)}[preset]


def test_kip_s_networks_have_the_convolution_of_its_kernel(grey):
    official = evaluation("kip", grey, protocol="official")
    assert (official.read_out.kernel, official.network.name) == ("convnet", "convnet_prepended")
    assert build_network(official.varied(width=4), grey.spec).name == "convnet_prepended"
    assert evaluation("kip", grey, evaluation_rate=0.5).optimizer.learning_rate == 0.5
