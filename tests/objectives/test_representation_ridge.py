"""KRR-ST's objective against NumPy and central differences in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import pools
from dd_jax.augment import views
from dd_jax.errors import ConfigError
from dd_jax.objectives.representation_ridge import representation_ridge, representations
from dd_jax.types import Batch, Network, Outputs, SyntheticSet
from tests.laws import members

PIXELS = int(np.prod(members.SHAPE))
RNG = np.random.default_rng(0)
PROJECTION = RNG.normal(size=(PIXELS, 12)) / PIXELS**0.5
TEACHER = RNG.normal(size=(PIXELS, 5)) / PIXELS**0.5


def projecting(matrix):
    """A network whose features are tanh of a fixed projection: smooth, and easy in NumPy."""

    def apply(variables, images, train=False):
        x = jnp.tanh(images.reshape(images.shape[0], -1) @ matrix.astype(images.dtype))
        return Outputs(x, x)

    return Network(init=lambda key: {"params": {}}, apply=apply)


def made(ridge=1e-3, augmentation=None, batch_size=9):
    network = projecting(PROJECTION)
    teacher = representations(projecting(TEACHER), {"params": {}}, chunk=4)
    return representation_ridge(network, pools.fresh_pool(network), teacher, ridge=ridge,
                                batch_size=batch_size, augmentation=augmentation)


def problem(dtype=jnp.float64):
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.normal(size=(4, *members.SHAPE)), dtype)
    labels = jnp.asarray(rng.normal(size=(4, 5)), dtype)
    real = jnp.asarray(rng.normal(size=(9, *members.SHAPE)), dtype)
    return SyntheticSet(images, labels), Batch(real, jnp.zeros(9, jnp.int32))


def reference(synthetic, real, *, ridge=1e-3, mu=None):
    """The formula, with its regulariser given or from the trace; returns the loss and mu."""
    def features(x):
        f = np.tanh(np.asarray(x, np.float64).reshape(len(x), -1) @ PROJECTION)
        return np.concatenate([f, np.ones((len(f), 1))], axis=1)

    f_s, f_t = features(synthetic.images), features(real)
    gram = f_s @ f_s.T
    mu = ridge * np.trace(gram) if mu is None else mu
    p = f_t @ f_s.T @ np.linalg.solve(gram + mu * np.eye(4), np.asarray(synthetic.labels))
    wanted = np.tanh(np.asarray(real, np.float64).reshape(len(real), -1) @ TEACHER)
    return np.mean((p - wanted) ** 2), mu


def test_value_equals_numpy():
    synthetic, batch = problem(jnp.float32)
    value, metrics = jax.jit(made().loss)(synthetic, (), batch, jax.random.key(0))
    np.testing.assert_allclose(value, reference(synthetic, batch.images)[0], rtol=1e-4)
    assert float(metrics["explained"]) < 1


def test_gradient_equals_central_differences_with_the_regulariser_held():
    """In images and in representations; mu is that of the undisturbed set."""
    with jax.enable_x64(True):
        synthetic, batch = problem()
        objective = made(ridge=0.1)  # so large that a gradient through mu would be seen

        def loss(images, labels):
            moved = SyntheticSet(images, labels)
            return objective.loss(moved, (), batch, jax.random.key(0))[0]

        found = jax.jit(jax.grad(loss, (0, 1)))(synthetic.images, synthetic.labels)
        mu = reference(synthetic, batch.images, ridge=0.1)[1]
        rng = np.random.default_rng(2)
        for i, name in enumerate(("images", "labels")):
            leaf = np.asarray(getattr(synthetic, name))
            direction = rng.normal(size=leaf.shape)
            ends = [reference(synthetic._replace(**{name: leaf + t * direction}), batch.images,
                              mu=mu)[0] for t in (1e-6, -1e-6)]
            np.testing.assert_allclose(np.vdot(np.asarray(found[i]), direction),
                                       (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_real_images_are_augmented_before_both_networks():
    """With an enormous cutout both networks see mostly black."""
    black = views(members.SHAPE, padding=0, flip=False, cutout=1.0, fill=jnp.float32(-2.0))
    synthetic, batch = problem(jnp.float32)
    objective = made(augmentation=black)
    seen = jax.jit(lambda: black.apply(black.draw(jax.random.split(jax.random.key(3))[1], 9),
                                       batch.images))()
    assert not np.allclose(seen, batch.images)
    value, _ = jax.jit(objective.loss)(synthetic, (), batch, jax.random.key(3))
    np.testing.assert_allclose(value, reference(synthetic, seen)[0], rtol=1e-4)


def test_representations_of_another_length_are_refused():
    synthetic, batch = problem(jnp.float32)
    with pytest.raises(ConfigError, match="2 long.* 5"):
        made().loss(synthetic._replace(labels=jnp.zeros((4, 2))), (), batch, jax.random.key(0))
    with pytest.raises(ConfigError, match="ridge"):
        made(ridge=-1.0)
