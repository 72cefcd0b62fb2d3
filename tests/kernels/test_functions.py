"""Kernels from functions: shapes are checked before compiling, combinations are kernels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.kernels.functions import added, as_kernel, centred, scaled, traced_pair_bytes


def linear(x1, x2):
    return jnp.einsum("ihwc,jhwc->ij", x1, x2)


def rbf(x1, x2):
    return jnp.exp(-0.1 * jnp.sum((x1[:, None] - x2[None]) ** 2, axis=(2, 3, 4)))


def images(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 4, 4, 1)), jnp.float32)


def test_function_becomes_a_kernel():
    kernel = as_kernel(rbf)
    assert kernel.name == "rbf"
    np.testing.assert_array_equal(kernel(images(3), images(2, 1)), rbf(images(3), images(2, 1)))
    gram = kernel(images(5))
    np.testing.assert_array_equal(gram, gram.T)
    assert kernel.pair_bytes((4, 4, 1)) == 8 * 4 * 16


def test_gram_of_an_unsymmetric_function_is_symmetrised():
    kernel = as_kernel(lambda a, b: linear(a, b) + jnp.sum(a, (1, 2, 3))[:, None], name="lopsided")
    x = images(4)
    np.testing.assert_array_equal(kernel(x), kernel(x).T)
    np.testing.assert_allclose(kernel(x), 0.5 * (kernel(x, x) + kernel(x, x).T), rtol=1e-6)


def test_kernel_comes_back_with_what_was_asked():
    kernel = as_kernel(linear, pair_bytes=77)
    assert kernel.pair_bytes((8, 8, 3)) == 77
    assert as_kernel(kernel) == kernel
    renamed = as_kernel(kernel, name="mine", pair_bytes=lambda shape: shape[0])
    assert (renamed.name, renamed.pair_bytes((8, 4, 1)), renamed.pair) == ("mine", 8, kernel.pair)


def test_dtype_is_that_of_the_images():
    kernel = as_kernel(lambda a, b: linear(a, b).astype(jnp.bfloat16), name="half")
    assert kernel(images(2)).dtype == jnp.float32


@pytest.mark.parametrize("bad, says", [
    (3, "expected a Kernel or a function"),
    (lambda x: x, "does not take"),
], ids=["number", "one argument"])
def test_what_is_not_a_kernel_function_is_refused(bad, says):
    with pytest.raises(ConfigError, match=says):
        as_kernel(bad)


@pytest.mark.parametrize("bad, says", [
    (lambda a, b: linear(a, b)[None], r"float32 \(1, 3, 2\)"),
    (lambda a, b: linear(b, a), r"float32 \(2, 3\)"),
    (lambda a, b: (linear(a, b), 0), "a tuple"),
    (lambda a, b: linear(a, b) > 0, "bool"),
], ids=["extra axis", "transposed", "tuple", "bool"])
def test_wrong_results_are_refused_before_compiling(bad, says):
    kernel = as_kernel(bad, name="bad")
    with pytest.raises(ConfigError, match=says):
        jax.eval_shape(kernel.pair, images(3), images(2))


def test_memory_estimate_looks_into_loops_and_calls():
    def looped(x1, x2):
        return jax.lax.map(jax.jit(lambda s: rbf(x1 * s, x2)), jnp.arange(3.0)).sum(0)

    assert traced_pair_bytes(looped)((4, 4, 1)) == 8 * 4 * 16
    assert traced_pair_bytes(linear)((4, 4, 1)) == 8 * 4


def test_scaled_and_added():
    a, b = as_kernel(linear), as_kernel(rbf)
    x, y = images(3), images(2, 1)
    both = added(scaled(a, 0.5), b)
    assert both.name == "0.5*linear+rbf"
    np.testing.assert_allclose(both(x, y), 0.5 * linear(x, y) + rbf(x, y), rtol=1e-6)
    np.testing.assert_allclose(both(x), 0.5 * linear(x, x) + rbf(x, x), rtol=1e-6)
    assert both.pair_bytes((4, 4, 1)) == b.pair_bytes((4, 4, 1))
    for factor in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="factor"):
            scaled(a, factor)


def test_centred_kernel_is_that_of_centred_features():
    with jax.enable_x64(True):
        x, y, z = (jnp.asarray(images(n, s), jnp.float64) for n, s in ((3, 0), (2, 1), (7, 2)))
        kernel = centred(as_kernel(lambda a, b: linear(a, b) + 1.0, name="affine"), z)
        mean = z.mean(0)
        np.testing.assert_allclose(kernel(x, y), linear(x - mean, y - mean), atol=1e-12)
        on_reference = np.asarray(kernel(z))
        np.testing.assert_allclose(on_reference.sum(0), 0, atol=1e-12)
        np.testing.assert_array_equal(on_reference, on_reference.T)
        assert np.linalg.eigvalsh(on_reference).min() > -1e-12


def test_a_kernel_can_be_jitted_like_a_function():
    kernel = as_kernel(lambda a, b: jnp.einsum("ihwc,jhwc->ij", a, b))
    x = jnp.ones((2, 3, 3, 1))
    np.testing.assert_allclose(jax.jit(kernel)(x), kernel(x, x))
    np.testing.assert_allclose(jax.jit(kernel)(x, 2 * x), 2 * kernel(x))
