"""The random-feature regression against a slow float64 one with the explicit kernel."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets, pools
from dd_jax.errors import ConfigError
from dd_jax.objectives.random_feature_ridge import random_feature_ridge
from dd_jax.types import Batch
from tests.laws import members

NETWORKS, RIDGE, LENGTH = 3, 5e-3, 4 * 4 * 4  # 8x8 images, one block of four channels


@functools.cache
def network():
    return nets.convnet(members.SPEC, depth=1, width=4, norm="none", init_style="gaussian",
                        first_padding=1)


def build(loss="squared_error", **options):
    return random_feature_ridge(network(), pools.fresh_pool(network()), networks=NETWORKS,
                                ridge=RIDGE, loss=loss, **options)


def real_batch(count=7):
    rng = np.random.default_rng(0)
    return Batch(jnp.asarray(rng.normal(size=(count, *members.SHAPE)), jnp.float32),
                 jnp.asarray(rng.integers(0, 2, count), jnp.int32))


def the_set(temperature=0.7):
    return members.start("noise")._replace(log_temperature=jnp.float32(temperature))


def explicit(loss, synthetic, batch, key):
    """Loss and accuracy through k_ss and k_ts, in NumPy's float64."""
    embed = jax.jit(lambda k, x: network().apply(network().init(k), x).features)

    def features(images):
        parts = [embed(k, images) for k in jax.random.split(key, NETWORKS)]
        return np.concatenate([np.asarray(part, np.float64) for part in parts], axis=1)

    f_s, f_t = features(synthetic.images), features(batch.images)
    assert f_s.shape[1] == NETWORKS * LENGTH
    k_ss = 2 * f_s @ f_s.T / (NETWORKS * LENGTH) + 0.01
    k_ts = 2 * f_t @ f_s.T / (NETWORKS * LENGTH) + 0.01
    mu = RIDGE * np.trace(k_ss) / len(k_ss)
    p = k_ts @ np.linalg.solve(k_ss + mu * np.eye(len(k_ss)), np.asarray(synthetic.labels))
    classes = np.asarray(batch.labels)
    accuracy = np.mean(p.argmax(1) == classes)
    if loss == "squared_error":
        return 0.5 * np.mean((p - (np.eye(2)[classes] - 0.5)) ** 2), accuracy
    z = np.exp(float(synthetic.log_temperature)) * p
    return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), classes]), accuracy


@pytest.mark.parametrize("loss", ["squared_error", "platt"])
def test_value_equals_the_explicit_kernel_and_gradient_central_differences(loss):
    """Seven real images in chunks of four, so that the last chunk is padded."""
    objective = build(loss, chunk=4)
    with jax.enable_x64(True):
        wide = lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x  # noqa: E731
        synthetic, batch = jax.tree.map(wide, (the_set(), real_batch()))
        key = jax.random.key(1)
        both = jax.jit(jax.value_and_grad(
            lambda s: objective.loss(s, (), batch, key), has_aux=True
        ))
        (value, metrics), gradient = both(synthetic)
        expected, accuracy = explicit(loss, synthetic, batch, key)
        np.testing.assert_allclose(value, expected, rtol=1e-9)
        np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-6)
        rng = np.random.default_rng(2)
        direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), synthetic)

        def along(t):
            return both(jax.tree.map(lambda a, d: a + t * d, synthetic, direction))[0][0]

        analytic = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(gradient),
                                                      jax.tree.leaves(direction)))
        errors = [abs((along(h) - along(-h)) / (2 * h) - analytic) / abs(analytic)
                  for h in (1e-4, 1e-5, 1e-6)]
        assert min(errors) < 1e-7, errors
        if loss == "platt":  # each leaf counts: the temperature's share alone
            h = 1e-5
            ends = [both(synthetic._replace(log_temperature=synthetic.log_temperature + s * h))
                    [0][0] for s in (1, -1)]
            np.testing.assert_allclose(gradient.log_temperature, (ends[0] - ends[1]) / (2 * h),
                                       rtol=1e-6)


def test_chunks_and_mappings_agree_in_float32():
    batch, key = real_batch(), jax.random.key(3)
    results = []
    for options in (dict(chunk=2, mapping="map"), dict(chunk=100, mapping="vmap")):
        objective = build("platt", **options)
        results.append(jax.jit(jax.value_and_grad(
            lambda s, o=objective: o.loss(s, (), batch, key)[0]
        ))(the_set()))
    (one, first), (other, second) = results
    np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_allclose(one, explicit("platt", the_set(), batch, key)[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def largest(jaxpr) -> int:
    """Elements of the largest array anywhere in a program."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [v.aval.size for v in equation.outvars]
        for part in jax.tree.leaves(list(equation.params.values()),
                                    is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                sizes.append(largest(part))
    return max(sizes)


@pytest.mark.parametrize("chunk,fits", [(4, True), (256, False)])
def test_features_of_the_real_batch_are_never_held(chunk, fits):
    objective, batch = build(chunk=chunk), real_batch(256)
    program = jax.make_jaxpr(jax.grad(
        lambda s: objective.loss(s, (), batch, jax.random.key(0))[0]
    ))(the_set())
    assert (largest(program.jaxpr) < 256 * NETWORKS * LENGTH) == fits


def test_without_a_temperature_it_is_zero():
    batch, key = real_batch(), jax.random.key(0)
    objective = build("platt")
    value = jax.jit(lambda s: objective.loss(s, (), batch, key)[0])(members.start("noise"))
    np.testing.assert_allclose(value, explicit("platt", the_set(0.0), batch, key)[0], rtol=1e-5)


@pytest.mark.parametrize("change,message", [
    ({"loss": "plat"}, "platt"), ({"networks": 0}, "networks is 0"), ({"ridge": -1.0}, "-1.0"),
])
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        random_feature_ridge(network(), pools.fresh_pool(network()), **change)
