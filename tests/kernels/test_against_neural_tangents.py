"""Every architecture that neural_tangents has, against it, in both precisions.

Run as a program (`python -m tests.kernels.test_against_neural_tangents`) it prints the errors.
"""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import kernels

NAMES = ("fc1", "fc3", "conv2", "convnet2", "convnet", "convnet2_gap", "myrtle5", "myrtle7",
         "myrtle10")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("neural_tangents") is None,
                                reason="neural_tangents is not installed")


def theirs(name: str):
    """The kernel function of the same architecture, in `stax`."""
    stax = kernels.neural_tangents.import_neural_tangents().stax
    dense = [stax.Dense(1, 2**0.5, 0.1)]
    conv = [stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5, b_std=0.1), stax.Relu()]
    pool = [stax.AvgPool((2, 2), strides=(2, 2), padding="VALID")]
    flat, gap = [stax.Flatten()], [stax.GlobalAvgPool()]
    layers = {
        "fc1": [*flat, *dense, stax.Relu(), *dense],
        "fc3": [*flat, *3 * [*dense, stax.Relu()], *dense],
        "conv2": [*conv, *conv, *flat, *dense],
        "convnet2": [*2 * (conv + pool), *flat, *dense],
        "convnet": [*conv, *3 * (conv + pool), *flat, *dense],
        "convnet2_gap": [*2 * (conv + pool), *gap, *dense],
        "myrtle5": [*conv, *conv, *pool, *conv, *pool, *conv, *gap, *dense],
        "myrtle7": [*conv, *conv, *pool, *2 * conv, *pool, *2 * conv, *gap, *dense],
        "myrtle10": [*3 * conv, *pool, *3 * conv, *pool, *3 * conv, *gap, *dense],
    }[name]
    return stax.serial(*layers)[2]


def images(dtype):
    rng = np.random.default_rng(0)
    made = rng.normal(size=(4, 8, 8, 1))
    made[1, :, :3] = -0.8  # a constant background: collinear patches
    return jnp.asarray(made, dtype)


def errors(name: str, kind: str) -> dict[str, float]:
    """Largest relative differences off the diagonal and on it, in both precisions.

    On the diagonal of the NTK theirs is the less exact: the angle of an image with itself comes out
    as the square root of the rounding error there, and is zero here.
    """
    peer = theirs(name)
    with jax.enable_x64(True):
        x = images(jnp.float64)
        ours = kernels.named(name, kind)
        wanted = np.asarray(jax.jit(lambda x: peer(x, None, kind))(x))
        wide = np.asarray(jax.jit(ours)(x))
        cross = np.asarray(jax.jit(ours.pair)(x[:1], x[2:]))
    narrow = np.asarray(jax.jit(kernels.named(name, kind))(images(jnp.float32)))
    off = ~np.eye(len(wanted), dtype=bool)
    relative = np.abs(narrow - wanted) / np.abs(wanted)
    return {
        "float64": float((np.abs(wide - wanted) / np.abs(wanted))[off].max()),
        "float64 diagonal": float((np.abs(wide - wanted) / np.abs(wanted))[~off].max()),
        "float64 pair": float(np.max(np.abs(cross - wanted[:1, 2:]) / np.abs(wanted[:1, 2:]))),
        "float32 off the diagonal": float(relative[off].max()),
        "float32 diagonal": float(relative[~off].max()),
    }


# Both kinds come out of the same program; the NNGP of three layouts is enough for every change.
@pytest.mark.parametrize("name, kind", [(name, "ntk") for name in NAMES]
                         + [(name, "nngp") for name in ("fc3", "convnet2", "convnet2_gap")])
def test_equal(name, kind):
    found = errors(name, kind)
    assert found["float64"] <= 1e-10 and found["float64 pair"] <= 1e-10, found
    assert found["float64 diagonal"] <= (1e-8 if kind == "ntk" else 1e-10), found
    assert found["float32 off the diagonal"] <= 1e-4, found
    # What a ridge of 1e-6 of the diagonal can bear.
    assert found["float32 diagonal"] <= 1e-6, found


if __name__ == "__main__":
    for each in NAMES:
        for which in ("ntk", "nngp"):
            shown = errors(each, which)
            print(f"{which:5} {each:13}", "  ".join(f"{k} {v:.1e}" for k, v in shown.items()))
