"""The update of flat experts against its formula, the smooth one's against finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.train.expert_rules import sharpness_aware, smooth
from dd_jax.types import DataSpec
from tests.objectives import reference_gradients as reference

SPEC = DataSpec("toy", (3, 4, 2), 2, ("a", "b"))
NETWORK = nets.mlp(SPEC, width=8, depth=2)
COUNT = 19  # on a CPU two chunks, of which the last is not full
WEIGHTS = (np.arange(COUNT) % 4 != 1).astype(np.float32)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.eye(2)[rng.integers(0, 2, COUNT)]
    return rng.normal(size=(COUNT, *SPEC.shape)), labels


@pytest.fixture(scope="module")
def variables():
    return jax.jit(NETWORK.init)(jax.random.key(1))


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def run(rule, variables, *, epoch=0, plain=None):
    """Like the training does it: jitted, with a traced epoch."""
    images, labels = batch()

    @jax.jit
    def gradient(variables, epoch, images, labels, plain):
        return rule.gradient(NETWORK, epoch)(variables, images, labels, WEIGHTS, plain)

    plain = images if plain is None else plain
    as_float32 = [jnp.asarray(x, jnp.float32) for x in (images, labels, plain)]
    grads, after = gradient(variables, jnp.int32(epoch), *as_float32)
    np.testing.assert_array_equal(flat(after), flat(variables))
    return flat(grads)



def by_formula(params, rho, a):
    """Float64 NumPy; the move is exact, as it is not sent through float32."""
    images, labels = batch()
    keep = WEIGHTS > 0
    params = reference.as_float64(params)
    g0 = reference.gradient(params, images[keep], labels[keep])
    theta, first = flat(params), flat(g0)
    norm = np.sqrt(np.sum((np.abs(theta) * first) ** 2))
    moved = jax.tree.map(lambda p, g: p + rho * p**2 * g / (norm + 1e-12), params, g0)
    second = flat(reference.gradient(moved, images[keep], labels[keep]))
    cosine = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
    v = first - cosine * np.linalg.norm(first) * second / np.linalg.norm(second)
    assert abs(v @ second) < 1e-12
    return first, second - a * v


# A radius large enough for the two gradients to differ.
@pytest.mark.parametrize("a", [0.0, 1.0])
def test_the_sharpness_aware_gradient_is_its_formula(variables, a):
    ours = run(sharpness_aware(rho=0.7, a=a), variables)
    first, wanted = by_formula(variables["params"], 0.7, a)
    np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=2e-6)
    assert np.abs(first - wanted).max() > 1e-3


def test_no_radius_gives_the_plain_gradient_and_none_at_all_stays_finite(variables):
    plain = by_formula(variables["params"], 0.0, 0.3)[0]
    np.testing.assert_allclose(run(sharpness_aware(rho=0.0), variables), plain, atol=2e-6)
    # Zero weights: of the first layer both gradients are 0, and of the norm everything.
    dead = jax.tree.map(jnp.zeros_like, variables)
    found = run(sharpness_aware(), dead)
    assert np.isfinite(found).all()


def forward(params, x):
    """Sum of the logits of each image of [n, H, W, C], float64."""
    return (reference.hidden(params, x) @ params["head"]["kernel"]
            + params["head"]["bias"]).sum(axis=1)


def rough(params, images) -> float:
    """mean (||r|| - 1)^2 with r from central differences of every pixel."""
    step, total = 1e-6, []
    for image in images:
        moves = step * np.eye(image.size).reshape(-1, *image.shape)
        r = (forward(params, image + moves) - forward(params, image - moves)) / (2 * step)
        norms = np.sqrt((r.reshape(image.shape) ** 2).sum(axis=-1))
        total.append(np.mean((norms - 1) ** 2))
    return float(np.mean(total))


def test_the_smooth_gradient_against_finite_differences(variables):
    plain_images = batch(seed=5)[0]
    keep = WEIGHTS > 0
    images, labels = batch()
    params = reference.as_float64(variables["params"])
    fit = flat(reference.gradient(params, images[keep], labels[keep]))
    ours = run(smooth(penalty=3.0), variables, epoch=2, plain=plain_images)
    direction = np.random.default_rng(2).normal(size=ours.shape)
    leaves, treedef = jax.tree.flatten(params)
    ends = np.cumsum([x.size for x in leaves])

    def at(step):
        parts = [(x + step * direction[e - x.size:e].reshape(x.shape))
                 for x, e in zip(leaves, ends)]
        return rough(jax.tree.unflatten(treedef, parts), plain_images[keep])

    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    assert abs(slope) > 0.1
    np.testing.assert_allclose(ours @ direction, 0.6 * fit @ direction + 3.0 * slope, rtol=1e-3)


def test_the_ramp_ends_at_one(variables):
    parts = {epoch: run(smooth(penalty=0.0), variables, epoch=epoch) for epoch in (0, 9, 10, 40)}
    np.testing.assert_allclose(parts[0], 0.5 * parts[40], rtol=1e-5)
    np.testing.assert_allclose(parts[9], 0.95 * parts[40], rtol=1e-5)
    np.testing.assert_array_equal(parts[10], parts[40])
    np.testing.assert_array_equal(run(smooth(penalty=0.0, ramp=()), variables), parts[40])


def test_a_network_that_does_not_see_its_images_stays_finite(variables):
    dead = jax.tree.map(jnp.zeros_like, variables)
    assert np.isfinite(run(smooth(), dead)).all()


def test_wrong_numbers_are_refused():
    for wrong in (lambda: sharpness_aware(rho=-1.0), lambda: sharpness_aware(a=float("nan")),
                  lambda: smooth(penalty=-2), lambda: smooth(ramp=0.5),
                  lambda: smooth(ramp=(0.5, -1))):
        with pytest.raises(ConfigError):
            wrong()
    assert smooth().settings["ramp"][-1] == 0.95
