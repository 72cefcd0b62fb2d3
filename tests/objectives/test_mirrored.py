"""Sums of separate losses, and objectives of a set with its mirror images."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets, objectives, pools
from dd_jax.solvers.separable import separable_sum
from dd_jax.types import Batch, SyntheticSet
from tests.laws import members

PARTS = 3


def part_loss(shared, x, others):
    """Not quadratic, with constants of every kind: an integer, a key and numbers."""
    number, key, scale = others["number"], others["key"], others["scale"]
    noise = jax.random.normal(key, x["a"].shape, x["a"].dtype)
    inner = jnp.sum(jnp.sin(x["a"] * scale + noise) * shared["w"]) * (number + 1)
    return inner**2 + jnp.sum(x["b"] ** 3) * inner


@functools.cache
def arguments():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        shared = {"w": jnp.asarray(rng.normal(size=2)), "steps": jnp.int32(3)}
        learned = {"a": jnp.asarray(rng.normal(size=(PARTS, 2))),
                   "b": jnp.asarray(rng.normal(size=(PARTS, 1)))}
        others = {"number": jnp.arange(PARTS), "key": jax.random.split(jax.random.key(1), PARTS),
                  "scale": jnp.asarray(rng.normal(size=(PARTS, 2)))}
        return shared, learned, others


def plain_sum(shared, learned, others):
    return jnp.sum(jax.vmap(lambda x, o: part_loss(shared, x, o))(learned, others))


def close(ours, wanted):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_a_separable_sum_has_the_value_and_derivatives_of_the_sum(how):
    with jax.enable_x64(True):
        shared, learned, others = arguments()

        def all_of(total):
            def scaled(x):
                return 3.0 * total(shared, x, others)  # a cotangent that is not one

            return jax.jit(lambda x: (total(shared, x, others), jax.value_and_grad(scaled)(x),
                                      jax.jacrev(jax.grad(scaled))(x)))(learned)

        close(all_of(functools.partial(separable_sum, part_loss, how=how)), all_of(plain_sum))


def test_a_separable_sum_can_be_vmapped():
    with jax.enable_x64(True):
        shared, learned, others = arguments()
        many = jax.tree.map(lambda x: jnp.stack([x, 2 * x, x - 1]), learned)
        weights = jnp.stack([shared["w"], -shared["w"], 2 * shared["w"]])

        def slopes(total):
            def one(x, w):
                return jax.grad(lambda y: total({**shared, "w": w}, y, others))(x)

            return jax.jit(jax.vmap(one))(many, weights)

        close(slopes(functools.partial(separable_sum, part_loss, how="map")), slopes(plain_sum))


def test_what_is_not_learned_gets_no_derivative():
    with jax.enable_x64(True):
        shared, learned, others = arguments()

        def total(w, scale):
            return separable_sum(part_loss, {**shared, "w": w}, learned, {**others, "scale": scale})

        slopes = jax.jit(jax.grad(total, (0, 1)))(shared["w"], others["scale"])
        assert not any(np.any(s) for s in slopes)


def doubled_by_hand(synthetic):
    """Class by class: its images, then their left-right mirror images."""
    per_class = len(synthetic.images) // members.CLASSES
    images, labels = [], []
    for c in range(members.CLASSES):
        own = np.asarray(synthetic.images)[c * per_class : (c + 1) * per_class]
        images += [*own, *(image[:, ::-1] for image in own)]
        labels += 2 * [*np.asarray(synthetic.labels)[c * per_class : (c + 1) * per_class]]
    return SyntheticSet(jnp.asarray(np.stack(images)), jnp.asarray(np.stack(labels)))


NETWORK = nets.mlp(members.SPEC, width=8)


def _gradient():
    pool = pools.inner_trained_pool(NETWORK, uses=3, epochs=1)
    return objectives.gradient_matching(NETWORK, pool, batch_size=4)


def _mean():
    return objectives.mean_embedding(NETWORK, pools.fresh_pool(NETWORK), batch_size=4)


@pytest.mark.parametrize("build", [_gradient, _mean], ids=["gradient_matching", "mean_embedding"])
def test_mirrored_is_the_objective_of_the_doubled_set(build):
    plain = build()
    flipped = objectives.mirrored(plain)
    synthetic = members.start("noise", labels="one_hot")
    doubled = doubled_by_hand(synthetic)
    real = jnp.asarray(np.random.default_rng(3).normal(size=(2, 4, *members.SHAPE)), jnp.float32)
    batch = Batch(real, jnp.broadcast_to(jnp.arange(2)[:, None], (2, 4)))
    key = jax.random.key(2)

    @jax.jit
    def compared(synthetic, doubled):
        state = flipped.init(jax.random.key(0), synthetic)

        def loss(objective, images, s):
            return objective.loss(s._replace(images=images), state, batch, key)[0]

        ours = jax.value_and_grad(lambda x: loss(flipped, x, synthetic))(synthetic.images)
        whole = jax.value_and_grad(lambda x: loss(plain, x, doubled))(doubled.images)
        alone = loss(plain, synthetic.images, synthetic)
        after = (flipped.advance(synthetic, state, batch, key),
                 plain.advance(doubled, state, batch, key))
        return ours, whole, alone, after

    (value, slope), (expected, parts), alone, (after, wanted) = compared(synthetic, doubled)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert abs(float(value - alone)) > 1e-3 * abs(float(value))
    halves = np.asarray(parts).reshape(2, 2, 2, *members.SHAPE)  # class, original or mirror, image
    both = (halves[:, 0] + halves[:, 1][..., ::-1, :]).reshape(slope.shape)
    np.testing.assert_allclose(slope, both, rtol=1e-3, atol=1e-5 * np.abs(both).max())
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(wanted)):
        if jnp.issubdtype(a.dtype, jnp.floating):  # trained on the same set in another order
            np.testing.assert_allclose(a, b, atol=1e-5)
