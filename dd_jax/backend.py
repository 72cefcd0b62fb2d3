"""Choices that depend on the hardware or on JAX's switches, made in one place.

Nothing here runs at import: the functions ask JAX for its default backend when a program is traced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from dd_jax.errors import ConfigError, require_seed, require_whole, told, unknown

PyTree = Any
MAPPINGS = ("auto", "map", "vmap")
# Switches of JAX that change numbers, not only their last bits, as they are where nobody set them.
SWITCHES = {"jax_enable_x64": False, "jax_threefry_partitionable": True,
            "jax_default_matmul_precision": None, "jax_default_prng_impl": "threefry2x32"}
_NO_BOUND = 2**62  # bytes, of a device that does not say what it has
_first_user: int | None = None  # the process in which this library computed first


def as_key(key: Any) -> jax.Array:
    """A typed PRNG key from a seed or from itself: what every entry point takes for its `key`.

    Args:
      key: an integer seed in 0..2^32 - 1, or one typed key of the default kind.

    Raises:
      ConfigError: it is neither, or the process cannot compute, see `refuse_forked`.

    Example:
      >>> bool(as_key(3) == as_key(jax.random.key(3)))
      True
    """
    refuse_forked()
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        require_seed("seed", key)
        return jax.random.key(int(key))
    if hasattr(key, "dtype") and key.dtype == jax.random.key(0).dtype and key.shape == ():
        return key
    raise ConfigError(f"key is {told(key)}, expected an integer seed or one typed PRNG key "
                      "of the default kind", fix="pass key=0 or key=jax.random.key(0)")


@contextlib.contextmanager
def own_dtypes() -> Iterator[None]:
    """Context in which arrays have the library's own dtypes, float32 and int32.

    Whatever `jax_enable_x64` says outside: a run is the same with it as without. What is float64
    for a reason, ridge systems and kernels, asks for it by itself.

    Example:
      >>> with jax.enable_x64(True), own_dtypes():
      ...     str(jax.numpy.zeros(()).dtype)
      'float32'
    """
    with jax.enable_x64(False):
        yield


def refuse_forked() -> None:
    """Refuses to compute in a process forked from one that has, which would hang for ever.

    JAX has threads, and a fork copies none of them.

    Raises:
      ConfigError: as said.
    """
    global _first_user
    if _first_user is None:
        _first_user = os.getpid()
    if _first_user != os.getpid():
        raise ConfigError(
            "this process was forked from one that has used JAX, and would hang",
            fix="start workers by multiprocessing.get_context('spawn')")


def switches() -> dict[str, Any]:
    """The switches of JAX that change numbers, as they are now.

    Example:
      >>> switches()["jax_enable_x64"]
      False
    """
    return {name: getattr(jax.config, name) for name in SWITCHES}


def on_cpu() -> bool:
    """True when new programs run on the CPU."""
    return jax.default_backend() == "cpu"


def device_bytes() -> int | None:
    """All the memory that programs may have on the default device; None where nobody says.

    Example:
      >>> device_bytes() is None or device_bytes() > 2**20
      True
    """
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    if device.platform == "cpu" and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def memory_bound(given: int | None = None) -> int:
    """The bytes that may be held on the device at once: those given, or all that there are.

    Example:
      >>> memory_bound(10**9)
      1000000000
    """
    return given or device_bytes() or _NO_BOUND


def check_mapping(how: str | int) -> None:
    """Refuses what is neither in `MAPPINGS` nor a number of elements.

    Raises:
      ConfigError: as said.
    """
    if not isinstance(how, str):
        require_whole("mapping", how, example=10)
    elif how not in MAPPINGS:
        raise unknown("mapping", how, MAPPINGS)


def all_at_once(how: str | int) -> bool:
    """Whether elements that are mapped in this way are vmapped, all of them.

    Raises:
      ConfigError: `how` is neither one of `MAPPINGS` nor a number of elements.
    """
    check_mapping(how)
    return how == "vmap" or (how == "auto" and not on_cpu())


def map_over(fn: Callable, xs: PyTree, *, how: str | int = "auto") -> PyTree:
    """Applies `fn` along the leading axis of `xs`, one by one, in groups or all at once.

    A CPU is faster one by one (the working set of one element stays in cache, and a `lax.switch`
    runs only the chosen branch); an accelerator is faster all at once.

    Args:
      fn: function of one element.
      xs: pytree with a common leading axis.
      how: "map" (`lax.map`), "vmap", "auto" for the backend's default, or a number of elements
        that are vmapped together, group after group.

    Returns:
      The stacked results.

    Raises:
      ConfigError: `how` is none of these.

    Example:
      >>> import jax.numpy as jnp
      >>> map_over(lambda x: x * 2, jnp.arange(3), how="map").tolist()
      [0, 2, 4]
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    group = 1 if isinstance(how, str) else min(how, count)
    if all_at_once(how) or 1 < group == count:
        return jax.vmap(fn)(xs)
    return jax.lax.map(fn, xs, batch_size=group if group > 1 else None)


CHUNK = 16  # images whose activations stay in a CPU's cache


def chunk_size(total: int) -> int:
    """Images per pass for a batch of `total`: near `CHUNK` on a CPU, all of them elsewhere.

    Example:
      >>> chunk_size(100) in (15, 100)
      True
    """
    if not on_cpu():
        return total
    return -(-total // -(-total // CHUNK))


def in_chunks(fn: Callable, xs: PyTree, *, size: int | None = None) -> PyTree:
    """Applies a batched `fn` to `xs` chunk by chunk along the leading axis.

    On a CPU chunks of some tens of images keep the activations in cache; on an accelerator the
    whole batch goes at once. The result does not depend on the choice as long as `fn` treats the
    rows independently (no batch statistics).

    Args:
      fn: function of a batch, [b, ...] -> pytree of [b, ...].
      xs: pytree with a common leading axis B.
      size: rows per chunk; None for the backend's default (16 on a CPU, B elsewhere).

    Returns:
      What `fn(xs)` returns.

    Example:
      >>> import jax.numpy as jnp
      >>> in_chunks(lambda x: x + 1, jnp.arange(5), size=2).tolist()
      [1, 2, 3, 4, 5]
    """
    size, full, total = _chunks(xs, size)
    if total <= size:
        return fn(xs)
    out = _joined(jax.lax.map(fn, _head(xs, size, full)))
    if full * size == total:
        return out
    return _appended(out, fn(jax.tree.map(lambda x: x[full * size :], xs)))


def _chunks(xs: PyTree, size: int | None) -> tuple[int, int, int]:
    """(rows per chunk, full chunks, rows); what is left over is less than a chunk."""
    total = jax.tree.leaves(xs)[0].shape[0]
    size = max(1, min(size or (CHUNK if on_cpu() else total), total))
    return size, total // size, total


def _head(xs: PyTree, size: int, full: int) -> PyTree:
    return jax.tree.map(lambda x: x[: full * size].reshape(full, size, *x.shape[1:]), xs)


def _joined(ys: PyTree) -> PyTree:
    return jax.tree.map(lambda y: y.reshape(y.shape[0] * y.shape[1], *y.shape[2:]), ys)


def _appended(ys: PyTree, more: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jax.numpy.concatenate([a, b]), ys, more)


def mean_in_chunks(fn: Callable, xs: PyTree, *, size: int | None = None) -> PyTree:
    """The mean over rows of what a batched `fn` gives, with the memory of one chunk of it.

    Args:
      fn, xs, size: as for `in_chunks`.

    Returns:
      What `fn(xs)` returns, averaged over its leading axis.

    Example:
      >>> import jax.numpy as jnp
      >>> mean_in_chunks(lambda x: x**2, jnp.arange(5.0), size=2).item()
      6.0
    """
    return mean_and_rest_in_chunks(lambda x: (fn(x), ()), xs, size=size)[0]


def mean_and_rest_in_chunks(
    fn: Callable, xs: PyTree, *, size: int | None = None
) -> tuple[PyTree, PyTree]:
    """The same of a part of what `fn` gives, and all the rest.

    Args:
      fn: function of a batch, [b, ...] -> (pytree of [b, ...], another one).
      xs, size: as for `in_chunks`.

    Returns:
      (means of the first over their leading axis, the second as `fn(xs)` returns it).

    Example:
      >>> import jax.numpy as jnp
      >>> mean, rest = mean_and_rest_in_chunks(lambda x: (x**2, x + 1), jnp.arange(3.0), size=2)
      >>> rest.tolist()
      [1.0, 2.0, 3.0]
    """
    size, full, total = _chunks(xs, size)

    def summed(part):
        averaged, rest = fn(part)
        return jax.tree.map(lambda y: jax.numpy.sum(y, axis=0), averaged), rest

    def add(sums, part):
        more, rest = summed(part)
        return jax.tree.map(jax.numpy.add, sums, more), rest

    if full == 1:
        sums, rest = summed(jax.tree.map(lambda x: x[:size], xs))
    else:
        head = _head(xs, size, full)
        like = jax.eval_shape(summed, jax.tree.map(lambda x: x[0], head))[0]
        zeros = jax.tree.map(lambda y: jax.numpy.zeros(y.shape, y.dtype), like)
        sums, rest = jax.lax.scan(add, zeros, head)
        rest = _joined(rest)
    if full * size < total:
        sums, last = add(sums, jax.tree.map(lambda x: x[full * size :], xs))
        rest = _appended(rest, last)
    return jax.tree.map(lambda y: y / total, sums), rest
