"""The tangent kernel and the linearisation against the Jacobian, in float64."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.contrib.empirical import empirical_ntk, empirical_ntk_matrix, linearised
from dd_jax.errors import ConfigError
from dd_jax.types import DataSpec

SPEC = DataSpec("toy", (4, 4, 1), 3, ("a", "b", "c"))
CLASSES = 3


def images(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 4, 4, 1)), jnp.float64)


@functools.cache
def build(name):
    """(network, float64 variables, Jacobian: images -> [n, K, P])."""
    network = {"mlp": lambda: nets.mlp(SPEC, width=5),
               "convnet": lambda: nets.convnet(SPEC, depth=1, width=3)}[name]()
    variables = jax.jit(network.init)(jax.random.key(0))
    variables = jax.tree.map(lambda p: p.astype(jnp.float64), variables)

    @jax.jit
    def jacobian(x):
        tree = jax.jacrev(lambda p: network.apply({"params": p}, x).logits)(variables["params"])
        return jnp.concatenate([j.reshape(len(x), CLASSES, -1) for j in jax.tree.leaves(tree)],
                               axis=-1)

    return network, variables, jacobian


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


both_networks = pytest.mark.parametrize("name", ["mlp", "convnet"])


@both_networks
def test_kernel_is_the_mean_over_outputs(float64, name):
    network, variables, jacobian = build(name)
    x, y = images(5), images(3, 1)
    kernel = empirical_ntk(network, variables, block=2)
    wanted = jnp.einsum("iap,jap->ij", jacobian(x), jacobian(y)) / CLASSES
    pair, gram = jax.jit(lambda x, y: (kernel(x, y), kernel(x)))(x, y)
    np.testing.assert_allclose(pair, wanted, rtol=1e-11)
    gram = np.asarray(gram)
    wanted = jnp.einsum("iap,jap->ij", jacobian(x), jacobian(x)) / CLASSES
    np.testing.assert_allclose(gram, wanted, rtol=1e-11)
    np.testing.assert_array_equal(gram, gram.T)
    assert np.linalg.eigvalsh(gram).min() > -1e-12


def test_matrix_has_all_pairs_of_outputs(float64):
    network, variables, jacobian = build("mlp")
    x, y = images(5), images(3, 1)
    matrix = empirical_ntk_matrix(network, variables, block=2)
    a, b = (jacobian(z).reshape(len(z) * CLASSES, -1) for z in (x, y))
    pair, gram = jax.jit(lambda x, y: (matrix(x, y), matrix(x)))(x, y)
    np.testing.assert_allclose(pair, a @ b.T, atol=1e-12)
    gram = np.asarray(gram)
    np.testing.assert_allclose(gram, a @ a.T, atol=1e-12)
    np.testing.assert_array_equal(gram, gram.T)
    assert np.linalg.eigvalsh(gram).min() > -1e-12


def test_kernel_is_differentiable_in_the_images(float64):
    """Against central differences; the kinks of ReLU are not met."""
    network, variables, _ = build("mlp")
    x, y = images(3), images(4, 1)
    kernel = empirical_ntk(network, variables, block=2)
    loss = jax.jit(lambda x: jnp.sum(jnp.sin(kernel.pair(x, y))))
    direction = images(3, 2)
    found = jnp.vdot(jax.jit(jax.grad(loss))(x), direction)
    step = 1e-6
    wanted = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_float64_images_make_a_float64_kernel():
    with jax.enable_x64(True):
        network = nets.mlp(SPEC, width=5)
        kernel = empirical_ntk(network, jax.jit(network.init)(jax.random.key(0)))
        assert jax.eval_shape(kernel.pair, images(2), images(3)).dtype == jnp.float64
        small = images(2).astype(jnp.float32)
        assert jax.eval_shape(kernel.gram, small).dtype == jnp.float32


@both_networks
def test_linearised_network_is_the_first_order_expansion(float64, name):
    """f(theta_0 + h w) - f_lin(h w) falls with h^2; the slope is J w."""
    network, variables, jacobian = build(name)
    x = images(5)
    leaves, tree = jax.tree.flatten(variables["params"])
    rng = np.random.default_rng(1)
    w = jax.tree.unflatten(tree, [jnp.asarray(rng.normal(size=leaf.shape)) for leaf in leaves])
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(w)])
    linear = linearised(network, variables)
    bare = linearised(network, variables, centred=True)
    apply, linear_apply = jax.jit(network.apply), jax.jit(linear.apply)
    base, at_w = apply(variables, x), linear_apply({"params": w}, x)
    change = jnp.einsum("nap,p->na", jacobian(x), flat)
    np.testing.assert_allclose(at_w.logits, base.logits + change, atol=1e-12)
    np.testing.assert_allclose(jax.jit(bare.apply)({"params": w}, x).logits, change, atol=1e-12)
    np.testing.assert_array_equal(at_w.features, base.features)

    def error(h):
        moved = {"params": jax.tree.map(lambda p, d: p + h * d, variables["params"], w)}
        scaled = {"params": jax.tree.map(lambda d: h * d, w)}
        return np.abs(apply(moved, x).logits - linear_apply(scaled, x).logits).max()

    assert error(1e-5) < 0.02 * error(1e-4) < 0.02 * 1e-4


def test_linearised_network_starts_at_the_network(float64):
    network, variables, _ = build("mlp")
    linear = linearised(network, variables)
    start = linear.init(jax.random.key(1))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(start))
    both = jax.jit(lambda x: (linear.apply(start, x), network.apply(variables, x)))
    found, wanted = both(images(2))
    np.testing.assert_allclose(found.logits, wanted.logits, rtol=1e-13)
    assert linear.name == f"linearised {network.name}"


def test_running_statistics_are_constants():
    network = nets.convnet(SPEC, depth=1, width=3, norm="batch")
    variables = jax.jit(network.init)(jax.random.key(0))
    x = jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.float32)
    assert jax.eval_shape(empirical_ntk(network, variables).gram, x).shape == (2, 2)
    assert set(linearised(network, variables).init(jax.random.key(0))) == {"params"}


@pytest.mark.parametrize("build", [empirical_ntk, empirical_ntk_matrix, linearised],
                         ids=lambda f: f.__name__)
def test_variables_without_params_are_refused(build):
    with pytest.raises(ConfigError, match="expected a dict with 'params'"):
        build(nets.mlp(SPEC), {"weights": 1})
