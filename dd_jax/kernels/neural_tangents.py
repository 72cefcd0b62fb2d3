"""Any kernel of neural_tangents inside dd_jax.

The optional package neural_tangents computes the kernels of many more infinite networks than
`dd_jax.kernels.named` has. Its newest release, 0.6.5, does not import on a current JAX by itself;
`import_neural_tangents` imports it (and `dd_jax.kernels._nt_compat` says how). The closed-form
kernels of its `stax` work; its own empirical kernels do not.

Source: Novak et al., Neural Tangents: Fast and Easy Infinite Neural Networks in Python, 2020.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, MissingPackageError, unknown
from dd_jax.kernels import _nt_compat
from dd_jax.kernels.functions import as_kernel, symmetrised
from dd_jax.types import Kernel

_KINDS = ("ntk", "nngp")
_ALTERNATIVE = "use a built-in kernel, for example kernels.named('convnet3')"


def import_neural_tangents() -> types.ModuleType:
    """Imports the optional package neural_tangents, on a JAX that is newer than it.

    Afterwards `from neural_tangents import stax` works too, anywhere in the program.

    Returns:
      The module.

    Raises:
      MissingPackageError: it is not installed, or does not import here.

    Example:
      >>> stax = import_neural_tangents().stax                                   # doctest: +SKIP
    """
    if importlib.util.find_spec("neural_tangents") is None:
        raise MissingPackageError(
            "the package neural_tangents is not installed",
            fix="pip install --no-deps neural-tangents==0.6.5 frozendict, or " + _ALTERNATIVE,
        )
    try:
        return _nt_compat.load()
    except Exception as error:
        raise MissingPackageError(
            f"neural_tangents does not import on JAX {jax.__version__}: "
            f"{type(error).__name__}: {error}", fix=_ALTERNATIVE,
        ) from error


def from_neural_tangents(
    kernel_fn: Callable, *, get: str = "ntk", name: str = "neural_tangents"
) -> Kernel:
    """Makes a `Kernel` of the third element of a `stax` layer.

    Args:
      kernel_fn: (x1, x2 or None, get) -> [n1, n2], from images [n, H, W, C], not yet batched by
        `neural_tangents.batch` (`kernels.blockwise` does that, with its derivative).
      get: "ntk" (training every layer) or "nngp" (training the last one only).
      name: for tables and file names.

    Returns:
      A `Kernel` in the dtype of the images, differentiable in them. Its `pair_bytes` is an
      estimate from the traced program.

    Raises:
      ConfigError: not callable, an unknown `get`, or, when it is called, a result that is not
        [n1, n2] (the network does not end in a dense layer).

    Example:
      >>> stax = import_neural_tangents().stax                                   # doctest: +SKIP
      >>> _, _, kernel_fn = stax.serial(stax.Flatten(), stax.Dense(1))           # doctest: +SKIP
      >>> from_neural_tangents(kernel_fn).name                                   # doctest: +SKIP
      'neural_tangents'
    """
    if get not in _KINDS:
        raise unknown("kernel of neural_tangents", get, _KINDS)
    if not callable(kernel_fn):
        raise ConfigError(f"kernel_fn is {kernel_fn!r}, expected the third element of a stax layer",
                          fix="init_fn, apply_fn, kernel_fn = stax.serial(...)")
    kernel = as_kernel(lambda x1, x2: kernel_fn(x1, x2, get), name=name)

    def gram(x: jax.Array) -> jax.Array:
        jax.eval_shape(kernel.pair, x, x)  # says what is wrong with the shape, if anything is
        found = symmetrised(kernel_fn(x, None, get)).astype(x.dtype)
        if x.dtype == jnp.float64 or jax.default_backend() == "tpu":
            return found
        return jnp.where(jnp.eye(len(x), dtype=bool), _diagonal(kernel_fn, x, get)[:, None], found)

    return dataclasses.replace(kernel, gram=gram)


def _diagonal(kernel_fn: Callable, x: jax.Array, get: str) -> jax.Array:
    """k(x_i, x_i) [n] by way of float64: n evaluations beside the n^2 of the rest.

    In float32 the angle of an image with itself is wrong by the square root of the rounding error,
    and the NTK with it by 1e-4, which is more than a small ridge.
    """
    with jax.enable_x64(True):
        wide = x.astype(jnp.float64)
        out = jax.vmap(lambda image: kernel_fn(image[None], None, get)[0, 0])(wide)
        return out.astype(x.dtype)
