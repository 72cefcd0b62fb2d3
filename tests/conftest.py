"""Shared fixtures: a tiny real set, and recipes that run in a second."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import pathlib
import tempfile

import pytest

# Most of the suite's time is compilation of programs that run once: skip the optimiser's passes,
# and the slow way of fusing; XLA ends a process whose flags it does not know.
_FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if importlib.metadata.version("jax").startswith("0.10."):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))
# What a killed run left half written in the user's cache of programs crashes whoever reads it.
os.environ.setdefault("DD_JAX_COMPILATION_CACHE", "0")

# What one test has made from real data is there for the next, and for none of another run.
os.environ["DD_JAX_ARTEFACTS"] = tempfile.mkdtemp(prefix="dd_jax_artefacts_")

# Threads of several workers that spin for the same cores cost more than they bring.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    _CORES = sorted(os.sched_getaffinity(0))
    _WORKERS = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    _OWN = _CORES[int(os.environ["PYTEST_XDIST_WORKER"][2:])::_WORKERS]
    os.sched_setaffinity(0, _OWN or _CORES)

from tests.laws import members  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def kept_programs(tmp_path_factory):
    """Programs compiled once per worker: many runs are the same but for their folder.

    Not by environment variables, which runs that are to be killed would inherit.
    """
    import jax

    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session", autouse=True)
def kept_artefacts(tmp_path_factory):
    """Where runs keep what they make from real data: nowhere near the checkout."""
    folder = tmp_path_factory.mktemp("artefacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DD_JAX_ARTEFACTS", str(folder))
        yield folder


def pytest_collection_modifyitems(items):
    """Notebooks first: the longest tests at the end would leave one of two workers idle."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


_TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def programs():
    """Lets compiled programs go before their memory maps reach the 65,530 that Linux allows.

    Looked at after every eighth test: reading the maps takes as long as many a test.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if next(_TESTS) % 8 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        import jax

        jax.clear_caches()


@pytest.fixture(scope="session")
def toy():
    """Two easy classes of 8x8 images, 64 in all."""
    return members.toy_data()


@pytest.fixture(scope="session")
def toy_on_host(toy):
    """The same, its images kept as NumPy arrays."""
    import numpy as np

    from dd_jax.data import from_arrays

    return from_arrays(np.asarray(toy.images), np.asarray(toy.labels), name="toy", num_classes=2,
                       device=False)


@pytest.fixture
def tiny_recipe():
    """A factory of recipes that take a second: tiny_recipe("frepo", steps=6, ...)."""
    from tests.methods import tiny

    settings = {
        "frepo": dict(width=4, batch_size=16, steps=6, learning_rate=1e-2, evaluation_width=4),
        "dm": dict(width=4, batch_size=8, steps=6, evaluation_width=4, evaluation_epochs=5),
    }

    def build(name="frepo", **changes):
        return tiny.recipe(name, **{**settings[name], **changes})

    return build
