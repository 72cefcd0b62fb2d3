"""The patient teacher's plan, mixup and clipped gradients in protocols."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.evaluate import Protocol, protocol
from dd_jax.evaluate.optimizers import optimizer_of, rate_schedule
from dd_jax.evaluate.patient import PATIENCE, patient
from dd_jax.labels.losses import parse
from dd_jax.train import augmented


@pytest.mark.parametrize("name", sorted(PATIENCE))
def test_a_published_training_is_one_of_a_protocol(name):
    plan, by = PATIENCE[name], patient(name)
    rate = rate_schedule(by.optimizer, by.plan.epochs, 10)
    np.testing.assert_allclose([rate(0), rate(plan.warmup), rate(10 * plan.epochs)],
                               [0.0, plan.learning_rate, 0.0], rtol=1e-5, atol=1e-8)
    decay = by.optimizer.weight_decay * plan.learning_rate
    np.testing.assert_allclose(decay, plan.decay, rtol=0.01)
    assert dict(parse(plan.supervision).options)["temperature"] == plan.temperature
    assert (by.views.mixup, by.optimizer.clip, by.plan.batch_size) == (1.0, 1.0, plan.batch_size)
    assert Protocol.from_plain(json.loads(json.dumps(by.plain()))) == by


def test_digits_are_not_mirrored_and_other_values_can_be():
    assert patient(data="mnist").views.augmentation == "inception_digits"
    changed = patient("pets_fast", network="resnet18", epochs=7)
    assert (changed.network.name, changed.plan.epochs) == ("resnet18", 7)
    with pytest.raises(ConfigError, match="pets_fast"):
        patient("pets_fat")


def test_older_protocols_are_written_as_before():
    plain = protocol("dc").plain()
    assert "mixup" not in plain["views"] and "clip" not in plain["optimizer"]
    later = protocol("dc", mixup=0.5, clip=2.0).plain()
    assert (later["views"]["mixup"], later["optimizer"]["clip"]) == (0.5, 2.0)


def test_long_gradients_are_cut_and_short_ones_are_not():
    settings = protocol("t", learning_rate=1.0, momentum=0.0, weight_decay=0.0, clip=2.0,
                        schedule="constant").optimizer
    optimizer = optimizer_of(settings, 1, 1)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    for gradient, factor in (({"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}, 0.4),
                             ({"a": jnp.array([0.3, 0.0]), "b": jnp.array([0.4])}, 1.0)):
        step, _ = optimizer.update(gradient, optimizer.init(params), params)
        for name in params:
            np.testing.assert_allclose(step[name], -factor * gradient[name], rtol=1e-6)


@pytest.mark.parametrize("changes,message", [
    (dict(mixup=0.5, cutmix=0.5), "expected one of them"), (dict(mixup=2.0), "mixup is 2"),
    (dict(mixup=1.0, order="stored", schedule="constant"), "mixup 1.0, which need epochs"),
    (dict(clip=-1.0), "clip is -1"),
], ids=str)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        protocol("t", **changes)


def test_views_are_not_mixed_in_two_ways():
    with pytest.raises(ConfigError, match="expected one of them"):
        augmented(mix=0.5, blend=0.5)
    assert augmented(blend=0.5) is not None
