"""Feature kernels against the matrix product they stand for, random ones against their limit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.contrib.features import feature_kernel, network_features, random_feature_kernel
from dd_jax.errors import ConfigError
from dd_jax.kernels.blockwise import blockwise
from dd_jax.types import DataSpec

SPEC = DataSpec("toy", (4, 4, 1), 2, ("a", "b"))


def images(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 4, 4, 1)), jnp.float32)


def flat(x):
    return jnp.tanh(x.reshape(len(x), -1))


def test_conjugate_kernel_in_chunks():
    x, y = images(5), images(3, 1)
    kernel = feature_kernel(flat, scale=0.5, offset=0.1, chunk=2)

    @jax.jit
    def program(x):
        grad = jax.grad(lambda x: jnp.sum(kernel(x, y)))(x)
        wanted = jax.grad(lambda x: jnp.sum(0.5 * flat(x) @ flat(y).T))(x)
        return kernel(x, y), kernel(x), grad, wanted

    pair, gram, grad, wanted = program(x)
    np.testing.assert_allclose(pair, 0.5 * flat(x) @ flat(y).T + 0.1, rtol=1e-4)
    np.testing.assert_allclose(gram, 0.5 * flat(x) @ flat(x).T + 0.1, rtol=1e-4)
    np.testing.assert_array_equal(gram, gram.T)
    np.testing.assert_allclose(grad, wanted, rtol=1e-5)


def test_centred_features_leave_no_constant():
    x = images(6)
    gram = feature_kernel(flat, centre=flat(x).mean(0))(x)
    np.testing.assert_allclose(np.sum(gram, axis=0), 0, atol=1e-5)


def test_network_features_are_the_penultimate_ones():
    network = nets.convnet(SPEC, depth=1, width=4)
    variables, x = jax.jit(network.init)(jax.random.key(0)), images(3)
    kernel = feature_kernel(network_features(network, variables), chunk=2)
    gram, wanted = jax.jit(lambda x: (kernel(x), network.apply(variables, x).features))(x)
    np.testing.assert_allclose(gram, wanted @ wanted.T, rtol=1e-5)


def test_random_kernel_is_the_mean_over_its_networks():
    """K = 2 phi phi^T / (M F) + 0.01, phi the features of all networks side by side."""
    network, key, x, y = nets.mlp(SPEC, width=6), jax.random.key(3), images(4), images(3, 1)

    @jax.jit
    def program(key, x, y):
        kernel = random_feature_kernel(network, key, count=3)
        return kernel(x, y), kernel(x)

    features = jax.jit(lambda k, z: network.apply(network.init(k), z).features)
    phi = [jnp.concatenate([features(k, z) for k in jax.random.split(key, 3)], axis=1)
           for z in (x, y)]
    pair, gram = program(key, x, y)
    np.testing.assert_allclose(pair, 2 * phi[0] @ phi[1].T / (3 * 6) + 0.01, rtol=1e-5)
    np.testing.assert_allclose(gram, 2 * phi[0] @ phi[0].T / (3 * 6) + 0.01, rtol=1e-5)
    np.testing.assert_array_equal(gram, gram.T)
    assert np.linalg.eigvalsh(gram).min() > -1e-5


def test_random_kernel_tends_to_the_infinite_network():
    """One hidden layer, weight variance 2 / d, bias variance 0.01: the arc-cosine kernel."""
    x = images(4)
    network = nets.mlp(SPEC, width=8192, depth=2, init_style="gaussian")
    kernel = random_feature_kernel(network, jax.random.key(0), count=8)
    found = jax.jit(kernel.gram)(x)
    assert kernel.name == "8 random mlp"
    inner = 2 * np.einsum("ihwc,jhwc->ij", x, x) / 16 + 0.01
    norm = np.sqrt(np.outer(np.diag(inner), np.diag(inner)))
    angle = np.arccos(np.clip(inner / norm, -1, 1))
    nngp = norm * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    # 65,536 units: the standard error is about 0.01 where two images have variance 2.
    np.testing.assert_allclose(found, 2 * nngp + 0.01, atol=0.05)


def test_random_kernel_inside_a_step():
    """Drawn from the step's key, in blocks, differentiated: what a random-feature method does."""
    network, x, y = nets.mlp(SPEC, width=6), images(4), images(5, 1)

    def loss(x, key, wrap):
        return jnp.sum(jnp.sin(wrap(random_feature_kernel(network, key, count=2)).pair(x, y)))

    @jax.jit
    def step(x, key):
        return (jax.grad(loss)(x, key, lambda kernel: blockwise(kernel, block=2)),
                jax.grad(loss)(x, key, lambda kernel: kernel))

    in_blocks, whole = step(x, jax.random.key(1))
    np.testing.assert_allclose(in_blocks, whole, rtol=1e-4, atol=1e-7)
    assert np.abs(whole - step(x, jax.random.key(2))[1]).max() > 1e-3


@pytest.mark.parametrize("build", [
    lambda: feature_kernel(3),
    lambda: feature_kernel(flat, scale=0.0),
    lambda: feature_kernel(flat, offset=-1.0),
    lambda: random_feature_kernel(nets.mlp(SPEC), jax.random.key(0), count=0),
    lambda: random_feature_kernel(nets.mlp(SPEC), jax.random.key(0), w2=float("nan")),
    lambda: feature_kernel(lambda x: x)(images(2)),
    lambda: feature_kernel(lambda x: flat(x).T)(images(2)),
], ids=["number", "scale", "offset", "count", "variance", "not flat", "transposed"])
def test_bad_input_is_refused(build):
    with pytest.raises(ConfigError):
        build()
