"""Kernels from plain functions, and kernels from kernels.

Whatever takes two batches of images and returns their similarities becomes a `Kernel` here, with
its shape checked by abstract evaluation, before anything is compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.types import Kernel

# Two primes that no image shape contains: an array whose size both divide is one per pair.
_ROWS, _COLUMNS = 61, 67
# Arrays of the largest size that are alive at once in the derivative of a chain of layers.
_LIVE = 8


def symmetrised(gram: jax.Array) -> jax.Array:
    """(G + G^T) / 2, exactly symmetric, with the diagonal as it was.

    Example:
      >>> import jax.numpy as jnp
      >>> symmetrised(jnp.array([[1.0, 2.0], [4.0, 3.0]])).tolist()
      [[1.0, 3.0], [3.0, 3.0]]
    """
    return 0.5 * (gram + gram.T)


def _largest_pair_array(jaxpr) -> int:
    """Bytes per pair of the largest array of a program over _ROWS x _COLUMNS pairs."""
    pairs, largest = _ROWS * _COLUMNS, 0
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            size = math.prod(getattr(variable.aval, "shape", ()))
            if size % pairs == 0:
                largest = max(largest, size // pairs * variable.aval.dtype.itemsize)
        for value in jax.tree.leaves(list(equation.params.values()),
                                     is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                largest = max(largest, _largest_pair_array(inner))
    return largest


def traced_pair_bytes(pair: Callable) -> Callable[[tuple[int, int, int]], int]:
    """Estimates a kernel's working memory per pair from its program, without running it.

    Eight times the bytes of the largest intermediate array that grows with the number of pairs:
    what a chain of layers keeps alive in its derivative.

    Args:
      pair: (x1 [n1, H, W, C], x2 [n2, H, W, C]) -> [n1, n2], traceable at any n1, n2.

    Returns:
      (shape (H, W, C)) -> bytes in float32; traced once per shape.

    Example:
      >>> import jax.numpy as jnp
      >>> def rbf(x1, x2):
      ...     return jnp.exp(-jnp.sum((x1[:, None] - x2[None]) ** 2, axis=(2, 3, 4)))
      >>> traced_pair_bytes(rbf)((8, 8, 1)) == 8 * 4 * 64
      True
    """

    @functools.lru_cache(maxsize=16)
    def pair_bytes(shape: tuple[int, int, int]) -> int:
        rows = jax.ShapeDtypeStruct((_ROWS, *shape), jnp.float32)
        columns = jax.ShapeDtypeStruct((_COLUMNS, *shape), jnp.float32)
        largest = _largest_pair_array(jax.make_jaxpr(pair)(rows, columns).jaxpr)
        return _LIVE * max(largest, 4)

    return lambda shape: pair_bytes(tuple(shape))


def _check_function(fn: Callable) -> None:
    if not callable(fn):
        raise ConfigError(f"a kernel is {fn!r}, expected a Kernel or a function k(x1, x2)",
                          fix="pass for example kernels.named('convnet3') or a function")
    try:
        inspect.signature(fn).bind(None, None)
    except TypeError as error:
        raise ConfigError(f"the kernel function {_name_of(fn)!r} does not take (x1, x2): {error}",
                          fix="give it two positional arguments, both [n, H, W, C]") from error
    except ValueError:  # some built-ins have no signature; their call will tell
        pass


def _name_of(fn: Callable) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def as_kernel(
    fn_or_kernel: Kernel | Callable, *, name: str | None = None,
    pair_bytes: Callable[[tuple[int, int, int]], int] | int | None = None,
) -> Kernel:
    """Makes a `Kernel` of a plain function k(x1, x2); a `Kernel` comes back as it is.

    The Gram matrix is (k(x, x) + k(x, x)^T) / 2. Every call is checked by `jax.eval_shape` first.

    Args:
      fn_or_kernel: a `Kernel`, or (x1 [n1, H, W, C], x2 [n2, H, W, C]) -> [n1, n2].
      name: for tables and file names; None for the function's or the kernel's own.
      pair_bytes: working memory of a pair of float32 images: a number, a function of the shape
        (H, W, C), or None for an estimate from the traced program.

    Returns:
      A `Kernel`, differentiable where the function is.

    Raises:
      ConfigError: not callable, not a function of two arguments, or, when the kernel is called, a
        result of the wrong shape or type.

    Example:
      >>> import jax.numpy as jnp
      >>> def linear(x1, x2):
      ...     return jnp.einsum("ihwc,jhwc->ij", x1, x2)
      >>> as_kernel(linear)(jnp.ones((3, 2, 2, 1)), jnp.ones((2, 2, 2, 1))).shape
      (3, 2)
    """
    if isinstance(pair_bytes, int):
        pair_bytes = functools.partial(lambda count, shape: count, pair_bytes)
    if isinstance(fn_or_kernel, Kernel):
        kernel = fn_or_kernel
        return dataclasses.replace(kernel, name=name or kernel.name,
                                   pair_bytes=pair_bytes or kernel.pair_bytes)
    fn = fn_or_kernel
    _check_function(fn)
    name = name or _name_of(fn)

    def pair(x1: jax.Array, x2: jax.Array) -> jax.Array:
        out = jax.eval_shape(fn, x1, x2)
        wanted = (x1.shape[0], x2.shape[0])
        found = getattr(out, "shape", None)
        if found != wanted or not jnp.issubdtype(out.dtype, jnp.floating):
            kind = f"{out.dtype} {found}" if found is not None else f"a {type(out).__name__}"
            raise ConfigError(
                f"kernel {name!r} returned {kind} for images {x1.shape} and {x2.shape}, expected "
                f"a float array of shape {wanted}",
                fix="return one similarity per pair of images, [n1, n2]",
            )
        return fn(x1, x2).astype(jnp.result_type(x1, x2))

    def gram(x: jax.Array) -> jax.Array:
        return symmetrised(pair(x, x))

    return Kernel(pair=pair, gram=gram, pair_bytes=pair_bytes or traced_pair_bytes(pair),
                  name=name)


def scaled(kernel: Kernel, factor: float) -> Kernel:
    """The kernel times a positive number.

    Raises:
      ConfigError: a factor that is not positive and finite.

    Example:
      >>> import jax.numpy as jnp
      >>> linear = as_kernel(lambda a, b: jnp.einsum("ihwc,jhwc->ij", a, b), name="linear")
      >>> float(scaled(linear, 0.25)(jnp.ones((1, 2, 2, 1)))[0, 0])
      1.0
    """
    if not 0.0 < factor < float("inf"):
        raise ConfigError(f"the factor of a kernel is {factor!r}, expected a positive number",
                          fix="pass for example factor=0.5")
    return dataclasses.replace(
        kernel,
        pair=lambda x1, x2: factor * kernel.pair(x1, x2),
        gram=lambda x: factor * kernel.gram(x),
        name=f"{factor:g}*{kernel.name}",
    )


def added(first: Kernel, *others: Kernel) -> Kernel:
    """The sum of kernels, itself a kernel: its features are those of all of them side by side.

    Example:
      >>> import jax.numpy as jnp
      >>> linear = as_kernel(lambda a, b: jnp.einsum("ihwc,jhwc->ij", a, b), name="linear")
      >>> added(linear, linear).name
      'linear+linear'
    """
    kernels = (first, *others)
    return Kernel(
        pair=lambda x1, x2: sum(k.pair(x1, x2) for k in kernels),
        gram=lambda x: sum(k.gram(x) for k in kernels),
        pair_bytes=lambda shape: max(k.pair_bytes(shape) for k in kernels),
        name="+".join(k.name for k in kernels),
    )


def centred(kernel: Kernel, reference: jax.Array) -> Kernel:
    """The kernel of features minus their mean over a reference set.

    With k(x, x') = <phi(x), phi(x')> and m = mean_z phi(z) over the reference images z,

      k_c(x, x') = <phi(x) - m, phi(x') - m>
                 = k(x, x') - mean_z k(x, z) - mean_z k(z, x') + mean_{z, z'} k(z, z').

    It is positive semi-definite for any x, and on x = reference it is the doubly centred Gram
    matrix of kernel PCA and of CKA. No constant function is left in it: a regression needs targets
    of mean zero, or an intercept.

    Args:
      kernel: k.
      reference: z, [m, H, W, C], constant for the derivative. Every evaluation also pairs its
        images with all of them, so keep m small or `blockwise` the kernel first; k(z, z') is
        evaluated once, here.

    Returns:
      A `Kernel`.

    Example:
      >>> import jax.numpy as jnp
      >>> linear = as_kernel(lambda a, b: jnp.einsum("ihwc,jhwc->ij", a, b), name="linear")
      >>> x = jnp.arange(3.0).reshape(3, 1, 1, 1)
      >>> centred(linear, x)(x).tolist()
      [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 1.0]]
    """
    reference = jax.lax.stop_gradient(reference)
    overall = jnp.mean(kernel.gram(reference))

    def towards_mean(x):
        return jnp.mean(kernel.pair(x, reference.astype(x.dtype)), axis=1)

    def pair(x1, x2):
        rows, columns = towards_mean(x1)[:, None], towards_mean(x2)[None, :]
        return kernel.pair(x1, x2) - rows - columns + overall.astype(x1.dtype)

    def gram(x):
        rows = towards_mean(x)
        return kernel.gram(x) - (rows[:, None] + rows[None, :]) + overall.astype(x.dtype)

    return dataclasses.replace(kernel, pair=pair, gram=gram, name=f"centred {kernel.name}")
