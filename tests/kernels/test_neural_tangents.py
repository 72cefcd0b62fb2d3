"""The adapter of neural_tangents: the import, closed forms, and direct calls."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError, MissingPackageError
from dd_jax.kernels import _nt_compat
from dd_jax.kernels.blockwise import blockwise
from dd_jax.kernels.neural_tangents import from_neural_tangents, import_neural_tangents

INSTALLED = importlib.util.find_spec("neural_tangents") is not None
needs_package = pytest.mark.skipif(not INSTALLED, reason="neural_tangents is not installed")
STD = dict(W_std=2**0.5, b_std=0.1)


@pytest.fixture(scope="module")
def stax():
    return import_neural_tangents().stax


def images(n, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 4, 4, 2)), dtype)


def arc_cosine_layer(k, ntk, q1, q2):
    norm = np.sqrt(np.outer(q1, q2))
    angle = np.arccos(np.clip(k / norm, -1, 1))
    slope = (np.pi - angle) / (2 * np.pi)
    return norm * np.sin(angle) / (2 * np.pi) + slope * k, slope * ntk


@needs_package
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-4), ("float64", 1e-7)])
def test_dense_network_has_its_closed_form(stax, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        x, y = images(3, dtype=dtype), images(2, 1, dtype)
        *_, kernel_fn = stax.serial(stax.Flatten(), stax.Dense(1, **STD), stax.Relu(),
                                    stax.Dense(1, **STD))
        first = [2 * np.einsum("ihwc,jhwc->ij", a, b) / 32 + 0.01
                 for a, b in ((x, x), (y, y), (x, y))]
        q1, q2 = np.diag(first[0]), np.diag(first[1])
        nngp, ntk = arc_cosine_layer(first[2], first[2], q1, q2)
        nngp = 2 * nngp + 0.01
        kernel, last = from_neural_tangents(kernel_fn), from_neural_tangents(kernel_fn, get="nngp")
        pair, only_last, gram = jax.jit(lambda x, y: (kernel(x, y), last(x, y), kernel(x)))(x, y)
        assert pair.dtype == only_last.dtype == gram.dtype == x.dtype
        np.testing.assert_allclose(pair, nngp + 2 * ntk, rtol=tolerance)
        np.testing.assert_allclose(only_last, nngp, rtol=tolerance)
        np.testing.assert_array_equal(gram, gram.T)
        # An image has no angle with itself, so the slope is 1/2; exact also in float32.
        np.testing.assert_allclose(np.diag(gram), 2 * q1 / 2 + 0.01 + q1, rtol=1e-6)


@needs_package
@pytest.mark.parametrize("pool", [False, True], ids=["conv", "pooled"])
def test_convolutional_network_in_blocks(stax, pool):
    """Equal to the direct call, in value and derivative, when it is cut into blocks."""
    pooling = [stax.AvgPool((2, 2), (2, 2))] if pool else []
    *_, kernel_fn = stax.serial(stax.Conv(1, (3, 3), padding="SAME", **STD), stax.Relu(), *pooling,
                                stax.Flatten(), stax.Dense(1, **STD))
    kernel = from_neural_tangents(kernel_fn, name="conv")
    # Position pairs are kept only where they are pooled.
    assert kernel.pair_bytes((4, 4, 2)) == (8 * 4 * 256 if pool else 8 * 4 * 16)
    with jax.enable_x64(True):
        x, y = images(4, dtype="float64"), images(3, 1, "float64")

        def program(pair):
            loss = lambda a: jnp.sum(jnp.sin(pair(a, y)))  # noqa: E731
            return jax.jit(lambda a: (pair(a, y), jax.grad(loss)(a)))(x)

        found = program(blockwise(kernel, block=2).pair)
        wanted = program(lambda a, b: kernel_fn(a, b, "ntk"))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, wanted)


@needs_package
def test_bad_input_is_refused(stax):
    *_, flat = stax.serial(stax.Flatten(), stax.Dense(1))
    *_, maps = stax.serial(stax.Conv(1, (3, 3), padding="SAME"), stax.Relu())
    with pytest.raises(ConfigError, match="ntkk"):
        from_neural_tangents(flat, get="ntkk")
    with pytest.raises(ConfigError, match="third element"):
        from_neural_tangents(stax)
    for call in (lambda k: k(images(2), images(2)), lambda k: k(images(2))):
        with pytest.raises(ConfigError, match=r"expected a float array of shape \(2, 2\)"):
            call(from_neural_tangents(maps))


@needs_package
def test_import_leaves_jax_as_it_was():
    code = (
        "import sys, warnings; warnings.simplefilter('error', DeprecationWarning)\n"
        "import jax.core, jax.interpreters.ad as ad, jax.extend.core\n"
        "before = [sorted(vars(m)) for m in (jax.core, ad)]\n"
        "from dd_jax.kernels.neural_tangents import import_neural_tangents\n"
        "nt = import_neural_tangents()\n"
        "assert nt is import_neural_tangents()\n"
        "assert [sorted(vars(m)) for m in (jax.core, ad)] == before\n"
        "assert 'jax.util' not in sys.modules\n"
        "assert not {'tensorflow', 'neural_tangents.experimental'} & set(sys.modules)\n"
        "from neural_tangents import stax\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_missing_package_names_the_alternative(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *args: None)
    with pytest.raises(MissingPackageError, match="not installed.*convnet3"):
        import_neural_tangents()


def test_failing_import_names_the_alternative(monkeypatch):
    def broken():
        raise AttributeError("jax.gone")

    monkeypatch.setattr(importlib.util, "find_spec", lambda *args: object())
    monkeypatch.setattr(_nt_compat, "load", broken)
    with pytest.raises(MissingPackageError, match="AttributeError: jax.gone.*convnet3"):
        import_neural_tangents()


def test_half_imported_package_is_removed(monkeypatch, tmp_path):
    """So that a second attempt fails in the same way, and not in a stranger one."""
    package = tmp_path / "half_a_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import part\nraise ImportError('half')\n")
    (package / "part.py").write_text("from jax.core import Jaxpr\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_nt_compat, "_PACKAGE", "half_a_package")
    for _ in range(2):
        with pytest.raises(ImportError, match="half"):
            _nt_compat.load()
        assert not [name for name in sys.modules if name.startswith("half_a_package")]
