"""Blocks change the memory of a kernel, and neither its values nor its derivative."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.kernels.block_plan import plan_blocks
from dd_jax.kernels.blockwise import blockwise
from dd_jax.kernels.functions import as_kernel
from dd_jax.types import Kernel


def positions(x1, x2):
    """All pairs of positions, like a pooled convolutional kernel: 16 x 16 floats per pair."""
    inner = jnp.einsum("ihwc,jklc->ijhwkl", x1, x2)
    return jnp.mean(inner**2 * jnp.tanh(inner), axis=(2, 3, 4, 5))


HEAVY = as_kernel(positions)


def guarded(x1, x2):
    """exp(-distance): its derivative is infinite where two images are equal."""
    return jnp.exp(-jnp.sqrt(jnp.sum((x1[:, None] - x2[None]) ** 2, axis=(2, 3, 4))))


def guarded_gram(x):
    off = ~jnp.eye(x.shape[0], dtype=bool)
    square = jnp.sum((x[:, None] - x[None]) ** 2, axis=(2, 3, 4))
    return jnp.where(off, jnp.exp(-jnp.sqrt(jnp.where(off, square, 1.0))), 1.0)


def images(n, seed=0, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 4, 4, 1)), dtype)


@pytest.mark.parametrize("n1, n2, block", [(7, 5, (3, 2)), (6, 4, 2), (3, 9, (5, 4))])
def test_pair_and_its_derivative_are_exact(n1, n2, block):
    with jax.enable_x64(True):
        x1, x2 = images(n1), images(n2, 1)
        weights = jnp.asarray(np.random.default_rng(2).normal(size=(n1, n2)))

        def program(kernel):
            loss = lambda a, b: jnp.sum(weights * kernel.pair(a, b))  # noqa: E731
            return jax.jit(lambda a, b: (kernel.pair(a, b), jax.grad(loss, (0, 1))(a, b)))(x1, x2)

        found, wanted = program(blockwise(HEAVY, block=block)), program(HEAVY)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, wanted)


@pytest.mark.parametrize("n, block", [(7, 3), (6, 2), (5, 4)])
def test_gram_and_its_derivative_are_exact(n, block):
    with jax.enable_x64(True):
        x = images(n)
        # Not symmetric on purpose: the rule has to symmetrise it.
        weights = jnp.asarray(np.random.default_rng(2).normal(size=(n, n)))

        def program(kernel):
            loss = lambda x: jnp.sum(weights * kernel.gram(x))  # noqa: E731
            return jax.jit(lambda x: (kernel.gram(x), jax.grad(loss)(x)))(x)

        found, wanted = program(blockwise(HEAVY, block=block)), program(HEAVY)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, wanted)
        np.testing.assert_array_equal(found[0], found[0].T)


def test_filling_up_meets_no_new_pair():
    """A copy of an image beside it would make the derivative of this kernel NaN."""
    with jax.enable_x64(True):
        kernel = Kernel(guarded, guarded_gram, lambda shape: 8, "guarded")
        x = images(7)
        grads = [jax.jit(jax.grad(lambda x, k=k: jnp.sum(jnp.sin(k.gram(x)))))(x)
                 for k in (kernel, blockwise(kernel, block=4))]
        assert np.isfinite(grads[0]).all()
        np.testing.assert_allclose(grads[1], grads[0], atol=1e-12)


def test_the_lower_half_only():
    """Blocks of a Gram matrix: counted while it runs."""
    seen = []

    def counted(x1, x2):
        jax.debug.callback(lambda: seen.append((len(x1), len(x2))))
        return HEAVY.pair(x1, x2)

    kernel = dataclasses.replace(HEAVY, pair=counted)
    jax.block_until_ready(blockwise(kernel, block=2)(images(8, dtype=jnp.float32)))
    jax.effects_barrier()
    assert seen == [(2, 2)] * 6


def _products(jaxpr) -> int:
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name == "dot_general"
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            count += _products(inner) if hasattr(inner, "eqns") else 0
    return count


@pytest.mark.parametrize("how", ["stop_gradient", "not differentiated", "inside jit"])
def test_images_without_a_derivative_cost_none(how):
    kernel = blockwise(HEAVY, block=2)
    x1, x2 = images(4, dtype=jnp.float32), images(6, 1, jnp.float32)
    pair = jax.jit(kernel.pair) if how == "inside jit" else kernel.pair

    def loss(a, b):
        return jnp.sum(pair(a, jax.lax.stop_gradient(b) if how == "stop_gradient" else b))

    argnums = (0, 1) if how == "stop_gradient" else 0
    one = jax.make_jaxpr(jax.grad(loss, argnums))(x1, x2)
    both = jax.make_jaxpr(jax.grad(lambda a, b: jnp.sum(kernel.pair(a, b)), (0, 1)))(x1, x2)
    # Forward, forward again, and one product per derivative.
    assert (_products(one.jaxpr), _products(both.jaxpr)) == (3, 4)


def test_memory_is_that_of_one_block():
    """Temporary memory grows by the images and the result, not by the pairs' working memory."""
    kernel = blockwise(HEAVY, block=4)

    def temporary(kernel, n2):
        shapes = [jax.ShapeDtypeStruct((n, 4, 4, 1), jnp.float32) for n in (8, n2)]
        gradient = jax.jit(jax.grad(lambda a, b: jnp.sum(jnp.sin(kernel.pair(a, b))), (0, 1)))
        return gradient.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    images_and_result = 4 * (16 + 8)
    growth = (temporary(kernel, 512) - temporary(kernel, 128)) / 384
    assert growth < 6 * images_and_result
    whole = (temporary(HEAVY, 512) - temporary(HEAVY, 128)) / 384
    assert whole > 8 * 1024  # eight pairs more per image: the test can tell them apart


def test_planned_from_the_budget():
    kernel = as_kernel(positions, pair_bytes=1000)
    x1, x2 = images(5, dtype=jnp.float32), images(7, 1, jnp.float32)
    np.testing.assert_allclose(blockwise(kernel, budget_bytes=4000)(x1, x2), kernel(x1, x2),
                               rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match="budget is 999 B; pass budget_bytes=1000 or more"):
        blockwise(kernel, budget_bytes=999)(x1, x2)
    with jax.enable_x64(True), pytest.raises(ConfigError, match="1.953 KiB"):
        blockwise(kernel, budget_bytes=1500)(images(5))


@pytest.mark.parametrize("n1, n2", [(100, 5000), (5000, 100), (3, 1000), (1000, 3), (40, 40),
                                    (1, 1)])
def test_plans_fit_and_fill_the_budget(n1, n2):
    kernel = as_kernel(positions, pair_bytes=2**20)
    plan = plan_blocks(kernel, n1, n2, (4, 4, 1), 2**28)
    assert 1 <= plan.rows <= n1 and 1 <= plan.columns <= n2
    assert plan.block_bytes <= 2**28
    assert plan.blocks <= 1.3 * n1 * n2 / 256 + 4
    assert f"{n1} x {n2} pairs in {plan.blocks} block" in plan.describe()


def test_one_block_is_the_kernel_itself():
    """So forward mode works, and nothing is computed twice."""
    x = images(3, dtype=jnp.float32)
    jax.jvp(blockwise(HEAVY), (x,), (x,))


@pytest.mark.parametrize("bad", [0, (2, 0), (1, 2, 3), "4", 2.0])
def test_bad_blocks_are_refused(bad):
    with pytest.raises(ConfigError, match="block is"):
        blockwise(HEAVY, block=bad)


def test_what_the_kernel_closes_over_is_differentiated_too():
    """Arrays of the step, such as a learned scale, or weights that depend on it."""
    x, y = images(5, dtype=jnp.float32), images(6, 1, jnp.float32)

    def loss(x, scale, wrap):
        unused = jnp.arange(3) * jnp.ones(3, jnp.int32)  # integers have no derivative
        kernel = wrap(as_kernel(lambda a, b: positions(a * scale, b * scale) + unused[0]))
        return jnp.sum(jnp.sin(kernel(x, y))) + jnp.sum(jnp.cos(kernel(x)))

    @jax.jit
    def step(x, scale):
        return [jax.grad(loss, (0, 1))(x, scale, wrap)
                for wrap in (lambda kernel: blockwise(kernel, block=2), lambda kernel: kernel)]

    found, wanted = step(x, 1.3)
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
