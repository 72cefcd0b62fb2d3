"""KIP's objective against NumPy, float64 differences and a dense float64 reference."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.objectives.kernel_ridge import kernel_ridge
from dd_jax.types import Batch
from tests.laws import members


def cubic(x1, x2):
    """(x . x' / d + 0.1)^3, a kernel of three lines."""
    flat = [x.reshape(x.shape[0], -1) for x in (x1, x2)]
    return (jnp.matmul(flat[0], flat[1].T, precision="highest") / flat[0].shape[1] + 0.1) ** 3


def real_batch(count=5):
    rng = np.random.default_rng(3)
    return Batch(jnp.asarray(rng.normal(size=(2, count, *members.SHAPE)), jnp.float32),
                 jnp.repeat(jnp.arange(2, dtype=jnp.int32)[:, None], count, 1))


def slow_value(synthetic, batch, ridge):
    """The loss by loops over pairs, in float64."""
    x = np.asarray(synthetic.images, np.float64).reshape(len(synthetic.images), -1)
    t = np.asarray(batch.images, np.float64).reshape(-1, x.shape[1])
    k_ss = np.array([[(a @ b / len(a) + 0.1) ** 3 for b in x] for a in x])
    k_ts = np.array([[(a @ b / len(a) + 0.1) ** 3 for b in x] for a in t])
    a = np.linalg.inv(k_ss + ridge * np.trace(k_ss) / len(x) * np.eye(len(x)))
    predictions = k_ts @ a @ np.asarray(synthetic.labels, np.float64)
    wanted = np.eye(2)[np.asarray(batch.labels).reshape(-1)] - 0.5
    accuracy = (predictions.argmax(1) == np.asarray(batch.labels).reshape(-1)).mean()
    return 0.5 * ((predictions - wanted) ** 2).mean(), accuracy


@pytest.mark.parametrize("ridge", [1e-6, 0.1])
def test_value_equals_numpy(ridge):
    objective = kernel_ridge(cubic, ridge=ridge)
    synthetic, batch = members.start(), real_batch()
    value, metrics = objective.loss(synthetic, (), batch, jax.random.key(0))
    expected, accuracy = slow_value(synthetic, batch, ridge)
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-6)
    assert int(metrics["jitter_steps"]) == 0 and float(metrics["condition"]) >= 1


def _gradients(objective, synthetic, batch):
    def loss(images, labels):
        moved = synthetic._replace(images=images, labels=labels)
        return objective.loss(moved, (), batch, jax.random.key(0))[0]

    return loss, jax.grad(loss, (0, 1))(synthetic.images, synthetic.labels)


def test_gradient_equals_central_differences_in_float64():
    with jax.enable_x64(True):
        synthetic, batch = jax.tree.map(
            lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x,
            (members.start(), real_batch()),
        )
        loss, gradients = _gradients(kernel_ridge(cubic, ridge=1e-2), synthetic, batch)
        rng = np.random.default_rng(0)
        for i, gradient in enumerate(gradients):
            direction = jnp.asarray(rng.normal(size=gradient.shape))

            def along(s, i=i, direction=direction):
                args = [synthetic.images, synthetic.labels]
                args[i] = args[i] + s * direction
                return loss(*args)

            numeric = (along(1e-5) - along(-1e-5)) / 2e-5
            np.testing.assert_allclose(jnp.vdot(gradient, direction), numeric, rtol=1e-7)


def test_float32_gradient_equals_plain_float64_autodiff():
    """The mixed-precision program against a dense solve that JAX differentiates by itself."""
    synthetic, batch = members.start(), real_batch()
    _, gradients = _gradients(kernel_ridge(cubic), synthetic, batch)

    def plain(images, labels):
        k = cubic(images, images)
        a = k + 1e-6 * jnp.trace(k) / len(k) * jnp.eye(len(k))
        real = batch.images.reshape(-1, *members.SHAPE).astype(images.dtype)
        wanted = jax.nn.one_hot(batch.labels.reshape(-1), 2) - 0.5
        return 0.5 * jnp.mean((cubic(real, images) @ jnp.linalg.solve(a, labels) - wanted) ** 2)

    with jax.enable_x64(True):
        expected = jax.grad(plain, (0, 1))(*(x.astype(jnp.float64) for x in synthetic[:2]))
    for ours, reference in zip(gradients, expected):
        assert ours.dtype == jnp.float32
        scale = np.abs(reference).max()
        np.testing.assert_allclose(ours / scale, np.asarray(reference) / scale, atol=2e-5)


def test_real_images_receive_no_gradient_and_batches_are_balanced():
    objective = kernel_ridge(cubic, batch_size=12)
    rows = objective.sample(members.toy_data(), (), jax.random.key(0))
    assert rows.shape == (2, 6)
    labels = np.asarray(members.toy_data().labels)[np.asarray(rows)]
    np.testing.assert_array_equal(labels, np.repeat([[0], [1]], 6, axis=1))
    batch = real_batch()
    gradient = jax.grad(lambda images: objective.loss(
        members.start(), (), batch._replace(images=images), jax.random.key(0))[0])(batch.images)
    assert not np.any(gradient)


@pytest.mark.parametrize("kind", ["constant", "duplicates"])
def test_singular_sets_stay_finite(kind):
    synthetic = members.start("constant" if kind == "constant" else "noise")
    if kind == "duplicates":
        synthetic = synthetic._replace(images=synthetic.images[jnp.array([0, 0, 1, 1])])
    loss, gradients = _gradients(kernel_ridge(cubic), synthetic, real_batch())
    assert np.isfinite(loss(synthetic.images, synthetic.labels))
    assert all(np.all(np.isfinite(g)) for g in gradients)


@pytest.mark.parametrize("options, message", [
    ({"ridge": -1.0}, "ridge is -1.0"), ({"mode": "trace"}, "trace_mean"),
    ({"batch_size": 5}, "batch_size is 5, .* batch_size=4"), ({"batch_size": 0}, "batch_size=2"),
])
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        objective = kernel_ridge(cubic, **options)
        objective.sample(members.toy_data(), (), jax.random.key(0))


def test_a_kernel_that_is_none_is_refused():
    with pytest.raises(ConfigError):
        kernel_ridge("convnet")
