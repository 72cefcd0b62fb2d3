"""The analytic kernels against a slow float64 reference with all pairs of positions."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.kernels import architectures as nets
from dd_jax.kernels import pairs
from dd_jax.kernels.layers import average_pool, conv, dense, flatten, global_average_pool, relu
from dd_jax.kernels.named import named
from dd_jax.kernels.program import nngp_and_ntk, program
from tests.kernels import reference_numpy as reference


def _images(n, shape, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *shape))


CASES = {
    "fc2": (nets.fully_connected(2), (4, 4, 3)),
    "conv2-colour": (nets.convolutional(2), (5, 4, 3)),
    "convnet-8x8": (nets.convnet(2, prepended=True), (8, 8, 1)),
    "convnet-odd": (nets.convnet(2), (7, 9, 1)),
    "gap-even-to-odd": (nets.convnet(2, "gap"), (6, 5, 2)),
    "own": (
        (average_pool(), conv(1.1, 0.3), average_pool(), conv(), relu(), global_average_pool(),
         dense(), relu(), dense(1.0, 0.0)),
        (8, 6, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference_in_float64(case):
    layers, shape = CASES[case]
    x, y = _images(2, shape), _images(3, shape, 1)
    with_gram = case in ("fc2", "conv2-colour", "gap-even-to-odd")

    def kernels(x, y):
        return nngp_and_ntk(layers, x, y), nngp_and_ntk(layers, x) if with_gram else None

    with jax.enable_x64(True):
        made = jax.jit(kernels)(x, y)
    wanted = reference.kernel(layers, x, y), reference.kernel(layers, x, x)
    for got, want in zip(jax.tree.leaves(made), jax.tree.leaves(wanted)):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("name", ["fc3", "convnet1"])
def test_float32_is_close_and_exact_on_the_diagonal(name):
    """A duplicate, a blank and a constant image: collinear patches everywhere."""
    x = _images(5, (8, 8, 1))
    x[1], x[2], x[3] = x[0], 0.0, 0.5
    kernel = named(name)
    both = jax.jit(lambda x: (kernel.gram(x), kernel.pair(x, x)))
    small, pairs = (np.asarray(k) for k in both(x.astype(np.float32)))
    off = ~np.eye(len(x), dtype=bool)
    np.testing.assert_allclose(pairs[off], small[off], rtol=2e-6)
    with jax.enable_x64(True):
        exact = np.asarray(jax.jit(kernel.gram)(x.astype(np.float32).astype(np.float64)))
    assert small.dtype == np.float32
    np.testing.assert_array_equal(small, small.T)
    np.testing.assert_allclose(small, exact, rtol=1e-4)
    np.testing.assert_allclose(np.diag(small), np.diag(exact), rtol=2e-6)
    np.testing.assert_allclose(exact[0, 1], exact[0, 0], rtol=1e-7)
    values = np.linalg.eigvalsh(exact)
    assert values[0] > -1e-9 * values[-1]


def test_groups_of_pairs_change_nothing(monkeypatch):
    """The number of pairs side by side is a matter of speed alone, in both directions."""
    x, y = jnp.asarray(_images(3, (4, 4, 1))), jnp.asarray(_images(5, (4, 4, 1), 1))
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(3, 5)))
    kernel, results = named("conv1"), []
    for size in (4, 16):
        monkeypatch.setattr(sys.modules[program.__module__], "group_size", lambda *_, g=size: g)
        loss = jax.value_and_grad(lambda x: (weights * kernel.pair(x, y)).sum())
        results.append(jax.jit(loss)(x))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_every_pair_of_a_gram_matrix_is_computed_once(n):
    i, j = pairs.triangle(n)(np.arange(n * (n + 1) // 2))
    assert len({frozenset(p) for p in zip(i.tolist(), j.tolist())}) == n * (n + 1) // 2
    number = np.asarray(pairs.triangle_number(n))
    for k, (a, b) in enumerate(zip(i, j)):
        assert number[a, b] == number[b, a] == k


def test_nngp_of_a_wide_random_network():
    """Covariance of the outputs of random networks of width 128, 80 of them."""
    shape, width, draws = (4, 4, 1), 128, 80
    layers = [conv(), relu(), conv(), relu(), average_pool(), global_average_pool(), dense()]
    x = _images(3, shape).astype(np.float32)
    kernel = np.asarray(program(layers, "nngp")(x))

    def convolve(key, h):
        padded = jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = [padded[:, i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
        return affine(key, jnp.concatenate(windows, -1), width)

    def affine(key, h, fan_out):
        keys = jax.random.split(key)
        weights = jax.random.normal(keys[0], (h.shape[-1], fan_out))
        bias = jax.random.normal(keys[1], (fan_out,))
        return h @ weights * np.sqrt(2 / h.shape[-1]) + 0.1 * bias

    def features(key):
        keys = jax.random.split(key, 2)
        h = jnp.maximum(convolve(keys[0], jnp.asarray(x)), 0)
        h = jnp.maximum(convolve(keys[1], h), 0)
        return h.mean((1, 2))

    def gram(key):
        f = features(key)
        return f @ f.T

    total = jax.lax.map(gram, jax.random.split(jax.random.key(0), draws)).mean(0)
    np.testing.assert_allclose(2 * total / width + 0.01, kernel, rtol=0.05)


def test_memory_of_a_pair_is_small_where_groups_run_in_turn():
    shape = (28, 28, 1)
    assert named("convnet").pair_bytes(shape) < 20_000
    assert named("fc1", "nngp").pair_bytes(shape) < named("fc3").pair_bytes(shape)


@pytest.mark.parametrize("name", ["fc", "fc0", "conv", "myrtle6", "fc1_gap", "convnet3-gap", "ntk"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ConfigError, match="unknown kernel"):
        named(name)


@pytest.mark.parametrize(
    "layers, message",
    [
        ([conv(), relu()], "0 read-outs"),
        ([flatten(), dense(), flatten()], "2 read-outs"),
        ([flatten(), conv()], "after the read-out"),
        ([dense(), flatten()], "before the read-out"),
        (["relu"], "expected a Layer"),
    ],
)
def test_impossible_lists_are_refused(layers, message):
    with pytest.raises(ConfigError, match=message):
        program(layers)


def test_bad_arguments_are_refused():
    kernel = named("convnet3")
    with pytest.raises(ConfigError, match="too small for 3 pools"):
        kernel(jnp.zeros((2, 4, 8, 1)))
    with pytest.raises(ConfigError, match=r"\[n1, H, W, C\]"):
        kernel(jnp.zeros((2, 8, 8)))
    with pytest.raises(ConfigError, match="uint8"):
        kernel(jnp.zeros((2, 8, 8, 1), jnp.uint8))
    with pytest.raises(ConfigError, match="kind of kernel"):
        named("fc1", "ntkk")
    with pytest.raises(ConfigError, match="b_std"):
        named("fc1", b_std=-1.0)
    with pytest.raises(ConfigError, match="W_std"):
        conv(W_std=0.0)
    with pytest.raises(ConfigError, match="depth"):
        nets.convnet(0)
    with pytest.raises(ConfigError, match="read-out"):
        nets.convnet(1, "gapp")
    with pytest.raises(ConfigError, match="Myrtle"):
        nets.myrtle(6)


def test_names_give_their_architectures():
    ops = [layer.op for layer in nets.myrtle(7)]
    assert ops.count("conv") == 6 and ops.count("average_pool") == 2
    assert [layer.op for layer in nets.convnet(3, prepended=True)].count("conv") == 4
    assert named("convnet3_gap", "nngp").name == "nngp-convnet3_gap"


def test_a_name_gives_one_object_so_that_programs_holding_it_compile_once():
    assert named("fc1") is named("fc1") and named("fc1") != named("fc1", "nngp")
