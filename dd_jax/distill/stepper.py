"""Compiled stepping of a run, and what it needs of a device's memory."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np

from dd_jax.data import as_index
from dd_jax.distill.outer import Distillation, DistillState, distillation, rows_outside
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import ConfigError, DeviceMemoryError
from dd_jax.types import RealData

_BUFFER = 512  # steps per dispatch at most; metrics of every step are kept on the device meanwhile
_DISPATCH_SECONDS = 1.0  # what a dispatch should take, so that a stop signal is answered soon


class Stepper:
    """Many steps in one program, or one by one where the host feeds them; call `compile` first."""

    def __init__(self, d: Distillation, data: RealData, *, from_host: bool):
        self._d, self._data = d, data
        self._count = 1
        self.needed = None  # bytes of working memory, once it is compiled
        self._sample = jax.jit(d.sample)
        if from_host:
            self._step = jax.jit(d.step, donate_argnums=0)
            self._validation = jax.tree.map(jax.jit, d.validation)
            self.advance = self._from_host
        else:
            self._run = jax.jit(d.run, static_argnames="length", donate_argnums=0)
            self.advance = self._on_device
        self._from_the_host = from_host

    def compile(self, state: DistillState) -> int | None:
        """Compiles for states like this one; bytes of working memory, where the backend says."""
        with _kept_arrays_told(jax.errors.UnexpectedTracerError):
            if self._from_the_host:
                self._step = compiled = self._step.lower(state, self._batch(state)).compile()
            else:
                run = self._run.lower(state, self._data, self._count, length=_BUFFER)
                self._run = compiled = run.compile()
        analysis = compiled.memory_analysis()
        self.needed = None if analysis is None else int(analysis.temp_size_in_bytes)
        return self.needed

    def _on_device(self, state: DistillState, limit: int):
        start = time.perf_counter()
        count = min(self._count, limit, _BUFFER)
        state, buffers, done = _called(self._run, state, self._data, count)
        done = int(done)
        buffers = {k: np.asarray(v)[:done] for k, v in buffers.items()}
        self._refuse_outside(buffers.pop("outside"))
        per_step = (time.perf_counter() - start) / max(done, 1)
        grown = max(1, min(4 * self._count, int(_DISPATCH_SECONDS / max(per_step, 1e-6))))
        self._count = min(grown, _BUFFER)
        return state, buffers

    def ended(self, state: DistillState) -> bool:
        """Whether the run ends before its last step, because the patience of `best_so_far` did."""
        return self._d.validation is not None and bool(self._d.validation.ended(state))

    def rows(self, state: DistillState) -> dict[str, np.ndarray]:
        """What the next step is fed with, by its place in the tree of rows."""
        rows = jax.tree_util.tree_leaves_with_path(self._rows(self._sample, state))
        return {f"rows{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in rows}

    def _rows(self, sample, state: DistillState):
        data = self._data
        return sample(state, as_index(data) if isinstance(data.images, np.ndarray) else data)

    def _refuse_outside(self, outside: np.ndarray) -> None:
        """Refuses steps that ask for rows which are not there; on a device these are others'."""
        if np.any(outside):
            raise ConfigError(
                f"a step asks for {int(np.max(outside))} rows that the data does not have, "
                f"expected 0 to {self._data.labels.shape[0] - 1}",
                fix="let the objective's sample return rows of the real set")

    def _batch(self, state: DistillState):
        rows = self._rows(self._sample, state)
        self._refuse_outside(np.asarray(rows_outside(rows, self._data)))
        return self._d.fetch(self._data, rows)

    def _from_host(self, state: DistillState, limit: int):
        del limit
        state, metrics = _called(self._step, state, self._batch(state))
        validation = self._validation
        if validation is not None:
            if validation.due(state):
                rows = self._rows(validation.sample, state)
                state = validation.take(state, self._d.fetch(self._data, rows))
            metrics["best_score"] = state.best.score
        return state, {k: np.asarray(v)[None] for k, v in metrics.items()}


def _called(program, *args):
    """What a compiled program gives."""
    with _kept_arrays_told(TypeError):
        return program(*args)


@contextlib.contextmanager
def _kept_arrays_told(raised: type[Exception]) -> Iterator[None]:
    """Says what to do where a function of the user's keeps an array of a traced call.

    The dry run traced the same functions. Such an array is refused when the program is traced, or
    it is a constant of the program that nobody has, which then asks for more arguments than it is
    given; releases of JAX differ in that.
    """
    try:
        yield
    except raised as error:
        raise ConfigError(
            f"the step cannot be compiled or called: {error}; a function keeps an array of one "
            "traced call, say in a list, and uses it in the next",
            fix="keep such arrays in the objective's state",
        ) from error


def free_bytes() -> int | None:
    """Memory that programs can still have on the default device; None where nobody says."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform == "cpu" and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


@contextlib.contextmanager
def memory_told(recipe: Recipe, stepper: Stepper, kept: str = "") -> Iterator[None]:
    """Turns a device's want of memory into an error that says what is needed and what to change.

    Args:
      recipe: of the run.
      stepper: its steps.
      kept: what of the run is saved.

    Raises:
      DeviceMemoryError: in place of the runtime's RESOURCE_EXHAUSTED.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed, free = stepper.needed, free_bytes()
        told = "" if needed is None else f"; a step needs {_size(needed)} of working memory"
        told += "" if free is None else f", {_size(free)} are free"
        lighter = [*recipe.objective.variants, "a smaller batch_size", "a smaller ipc",
                   "a narrower network"]
        raise DeviceMemoryError(
            f"{recipe.method}: the device is out of memory{kept}{told}: "
            f"{str(error).splitlines()[0]}", fix=f"choose {' or '.join(lighter[:4])}",
        ) from error


def report_memory(
    recipe: Recipe,
    stepper: Stepper,
    state: DistillState,
    data: RealData,
    *,
    from_host: bool,
    quiet: bool = False,
) -> None:
    """Compiles the step and says on stderr what it needs.

    If that is more than there is, it says so even where it should be quiet, and which of the
    objective's variants would do.
    """
    start = time.perf_counter()
    needed = stepper.compile(state)
    seconds = time.perf_counter() - start
    if needed is None:
        return
    if not quiet:
        print(f"{recipe.method}: a step needs {_size(needed)} of working memory "
              f"(compiled in {seconds:.0f} s)", file=sys.stderr)
    free = free_bytes()
    if free is None or needed <= free:
        return
    print(f"{recipe.method}: a step needs {_size(needed)}, but only {_size(free)} are free",
          file=sys.stderr)
    for name, build in recipe.objective.variants.items():
        try:
            varied = dataclasses.replace(recipe, objective=build())
            other = Stepper(distillation(varied), data, from_host=from_host).compile(state)
        except Exception as error:  # a hint must not end a run that may have memory enough
            print(f"{recipe.method}: what {name} needs cannot be said: {error}", file=sys.stderr)
            continue
        fits = "would fit" if other <= free else "would not fit either"
        print(f"{recipe.method}: with {name} it needs {_size(other)} and {fits}", file=sys.stderr)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
