"""Training of one network against a plain NumPy loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import augment, nets
from dd_jax.errors import ConfigError
from dd_jax.evaluate import for_network, protocol
from dd_jax.evaluate.build import build_network, centred, scaled
from dd_jax.evaluate.optimizers import rate_schedule
from dd_jax.evaluate.train import train
from dd_jax.labels import own_labels
from dd_jax.labels.losses import mean_squared_error
from dd_jax.train import rows_of
from dd_jax.types import DataSpec, Network, Outputs


def linear(features=5, classes=3):
    """Softmax regression that starts at zero."""

    def apply(variables, images, train=False):
        x = images.reshape(images.shape[0], -1)
        return Outputs(x @ variables["params"]["w"], x)

    return Network(lambda key: {"params": {"w": jnp.zeros((features, classes))}}, apply)


def numpy_sgd(x, y, *, epochs, rate, momentum, decay, drop_epoch):
    """Full-batch SGD with coupled weight decay; at the drop the buffer starts again."""
    w, buffer = np.zeros((x.shape[1], y.shape[1])), 0.0
    for epoch in range(epochs):
        if epoch == drop_epoch:
            rate, buffer = 0.1 * rate, 0.0
        z = x @ w
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        gradient = x.T @ (p - y) / len(x) + decay * w
        buffer = momentum * buffer + gradient
        w = w - rate * buffer
    return w


def fitted(x, y, by, *, batch_size=256, key=0):
    return train(
        linear(x.shape[1], y.shape[1]), by, size=len(x),
        take=rows_of(jnp.asarray(x)[:, None, :, None], jnp.asarray(y)),
        augmentation=augment.identity(), supervision=own_labels(), epochs=by.plan.epochs,
        batch_size=batch_size, key=jax.random.key(key),
    )["params"]["w"]


def problem(n=7):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, 5)).astype(np.float32),
            np.eye(3, dtype=np.float32)[rng.integers(0, 3, n)])


def test_sgd_with_step_drop_equals_numpy():
    x, y = problem()
    by = protocol("t", learning_rate=0.3, epochs=9, weight_decay=0.01)
    expected = numpy_sgd(x, y, epochs=9, rate=0.3, momentum=0.9, decay=0.01, drop_epoch=6)
    np.testing.assert_allclose(fitted(x, y, by), expected, rtol=1e-4, atol=1e-5)


def test_padding_of_the_last_batch_does_not_count():
    """One epoch of batches 4 + 3 at momentum 0: two steps, each a mean over its real rows."""
    x, y = problem(7)
    by = protocol("t", learning_rate=1.0, epochs=1, weight_decay=0.0, momentum=0.0,
                  schedule="constant")
    epoch_key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 0)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(epoch_key, 0), 7))
    w = np.zeros((5, 3))
    for rows in (order[:4], order[4:]):
        p = np.exp(x[rows] @ w)
        p /= p.sum(1, keepdims=True)
        w -= x[rows].T @ (p - y[rows]) / len(rows)
    np.testing.assert_allclose(fitted(x, y, by, batch_size=4), w, rtol=1e-4, atol=1e-5)


def test_chunked_gradients_equal_the_whole_batch():
    """40 rows go in three chunks of 14, of which two are padding, on a CPU."""
    x, y = problem(40)
    by = protocol("t", learning_rate=0.3, epochs=3, weight_decay=0.0, schedule="constant")
    expected = numpy_sgd(x, y, epochs=3, rate=0.3, momentum=0.9, decay=0.0, drop_epoch=99)
    np.testing.assert_allclose(fitted(x, y, by), expected, rtol=1e-4, atol=1e-5)


def test_centred_and_scaled_training_with_a_pull_equals_numpy():
    """mean_ik (f - f_0 - s y)^2 / s^2 + pull ||w - w_0||^2 by gradient descent with momentum."""
    x, y = problem()
    scale, pull, rate = 3.0, 0.05, 0.4
    first = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    plain = linear()
    network = scaled(centred(plain._replace(init=lambda key: {"params": {"w": first}})), scale)
    by = protocol("t", learning_rate=rate, epochs=20, weight_decay=0.0, pull=pull,
                  schedule="constant")
    ours = train(
        network, by, size=len(x),
        take=rows_of(jnp.asarray(x)[:, None, :, None], jnp.asarray(y)),
        augmentation=None, supervision=own_labels(mean_squared_error), epochs=20,
        batch_size=len(x), key=jax.random.key(0),
    )
    w, buffer = first.astype(np.float64), 0.0
    for _ in range(20):
        residual = x @ (w - first) - scale * y
        gradient = 2 * x.T @ residual / (len(x) * 3 * scale**2) + 2 * pull * (w - first)
        buffer = 0.9 * buffer + gradient
        w = w - rate * buffer
    np.testing.assert_allclose(ours["params"]["w"], w, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ours["initial"]["params"]["w"], first)
    predictions = network.apply(ours, jnp.asarray(x)[:, None, :, None]).logits
    np.testing.assert_allclose(predictions, x @ (w - first) / scale, rtol=1e-3, atol=1e-4)


def test_a_protocol_builds_a_network_with_centred_outputs():
    spec = DataSpec("t", (8, 8, 1), 3, ("a", "b", "c"))
    by = protocol("t", depth=1, width=4, norm="none", init_style="gaussian",
                  first_padding=1, centre_outputs=True, output_scale=2.0)
    network = build_network(by, spec)
    variables = network.init(jax.random.key(0))
    out = network.apply(variables, jnp.ones((2, 8, 8, 1)))
    assert not np.any(out.logits) and out.features.shape == (2, 4 * 4 * 4)
    moved = {**variables, "params": jax.tree.map(lambda p: 2 * p, variables["params"])}
    assert np.any(network.apply(moved, jnp.ones((2, 8, 8, 1))).logits)


@pytest.mark.parametrize("name", sorted(nets.NETWORKS))
def test_a_protocol_moves_to_every_network(name):
    spec = DataSpec("t", (32, 32, 1), 3, ("a", "b", "c"))
    network = build_network(for_network(protocol("t", depth=1, width=8), name), spec)
    out = jax.eval_shape(lambda k, x: network.apply(network.init(k), x), jax.random.key(0),
                         jnp.ones((2, 32, 32, 1)))
    assert out.logits.shape == (2, 3)


def test_warmup_cosine_has_its_corners():
    by = protocol("t", schedule="warmup_cosine", learning_rate=2.0, warmup=10,
                  final_fraction=0.01)
    rate = rate_schedule(by.optimizer, 110, 1)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(60), rate(110)],
                               [0.0, 1.0, 2.0, 1.01, 0.02], rtol=1e-5)


@pytest.mark.parametrize("change,message", [
    ({"schedule": "step-drop"}, "step_drop"), ({"optimizer": "sdg"}, "sgd"),
    ({"network": "convnt"}, "convnet"), ({"epochs": 0}, "epochs is 0"),
    ({"loss": "mse"}, "squared_error"), ({"learning_rate": -1.0}, "learning_rate is -1.0"),
    ({"pull": -0.5}, "pull is -0.5"), ({"output_scale": 0.0}, "output_scale is 0.0"),
])
def test_bad_protocols_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        protocol("t", **change)


def test_another_network_keeps_the_rest():
    moved = for_network(protocol("t", epochs=7), "mlp")
    assert (moved.network.name, moved.plan.epochs) == ("mlp", 7)
    with pytest.raises(ConfigError, match="convnet"):
        for_network(protocol("t"), "convne")
