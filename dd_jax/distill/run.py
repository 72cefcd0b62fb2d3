"""Runs a recipe to its end: compiles once, reports, saves, stops and continues."""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import as_key, own_dtypes
from dd_jax.data import as_index, fingerprint, training_part
from dd_jax.data.fetch import is_stored, refusals_told
from dd_jax.distill.best_so_far import best_notes
from dd_jax.distill.outer import Distillation, DistillState, all_finite, distillation
from dd_jax.distill.plan import Plan, check_plan, complete, refuse_other_run, store_beside
from dd_jax.distill.recipe import Recipe
from dd_jax.distill.stepper import Stepper, memory_told, report_memory
from dd_jax.errors import (
    ConfigError,
    DDJaxError,
    NonFiniteError,
    RunStopped,
    require_kind,
    told,
)
from dd_jax.run.cadence import Cadence
from dd_jax.run.metrics import MetricsWriter
from dd_jax.run.progress import progress, safe_callback
from dd_jax.run.stalled import StallWatch
from dd_jax.run.stop import StopSignals
from dd_jax.run.workdir import open_workdir
from dd_jax.store import DistilledSet, save
from dd_jax.store.artefacts import ArtefactStore
from dd_jax.store.record import Stored
from dd_jax.store.trajectories import normaliser_digest
from dd_jax.synthetic import stored_bytes
from dd_jax.types import Batch, PyTree, RealData, Split, SyntheticSet
from dd_jax.versions import versions

_FINALISE = 1001  # apart from the consumers that the outer loop folds into the same key


def run_options(
    *, log_every: int = 10, save_seconds: float = 60.0, save_every: int | None = None,
    show_progress: bool | None = None, callbacks: Sequence[Callable] = (),
) -> Cadence:
    """How often a run writes; refuses options that cannot be, before anything is made for it.

    Raises:
      ConfigError: as said.
    """
    del show_progress
    require_kind("callbacks", callbacks, (list, tuple), expected="a list of functions",
                 fix="pass callbacks=[f]")
    for callback in callbacks:
        if not callable(callback):
            raise ConfigError(f"a callback is {told(callback)}, expected a function",
                              fix="pass f(step, metrics)")
    return Cadence(log_every=log_every, save_seconds=save_seconds, save_every=save_every)


def _fetched(data: RealData, rows: PyTree) -> PyTree:
    """Shapes of what these rows stand for."""
    if is_stored(rows):
        return rows.store.like(rows.index)
    return Batch(jax.ShapeDtypeStruct((*rows.shape, *data.spec.shape), data.images.dtype),
                 jax.ShapeDtypeStruct(rows.shape, jnp.int32), rows)


def _check_rows(rows: PyTree) -> None:
    for leaf in jax.tree.leaves(rows, is_leaf=is_stored):
        if not is_stored(leaf) and not jnp.issubdtype(leaf.dtype, jnp.integer):
            raise ConfigError(f"the objective's sample gives rows of {leaf.dtype}, expected int32",
                              fix="return numbers of rows, as data.rows_uniform does")


def _checked_state(d: Distillation, key: jax.Array, data: RealData) -> tuple[PyTree, bool]:
    """Shapes of the state, and whether the host must feed the steps.

    Found in a dry run of one step: user mistakes surface here, before anything compiles.
    """
    try:
        like = jax.eval_shape(d.init, key, data)
        # As in the run: objectives may look at images, but not at those on the host.
        seen = as_index(data) if isinstance(data.images, np.ndarray) else data
        rows = jax.eval_shape(d.sample, like, seen)
        _check_rows(rows)
        if d.validation is not None:
            jax.eval_shape(d.validation.sample, like, seen)
        batch = jax.tree.map(lambda r: _fetched(data, r), rows, is_leaf=is_stored)
        after = jax.eval_shape(d.step, like, batch)[0]
    except DDJaxError:
        raise
    except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        raise ConfigError(
            f"a dry run of one step failed: {type(error).__name__}: {error}",
            fix="check the objective's and the parameterization's functions",
        ) from error
    before = jax.tree.map(lambda x: (x.shape, x.dtype), like)
    if before != jax.tree.map(lambda x: (x.shape, x.dtype), after):
        raise ConfigError("one step changes the shapes or dtypes of the state",
                          fix="let the objective's advance return a state like the one it got")
    stored = any(is_stored(r) for r in jax.tree.leaves(rows, is_leaf=is_stored))
    return like, stored or isinstance(data.images, np.ndarray)


def identity_of(recipe: Recipe, data: RealData, key: jax.Array, log_every: int) -> dict[str, Any]:
    """What must be equal for a folder to be continued: every value that shapes the run."""
    identity = {
        "method": recipe.method,
        "settings": dict(recipe.settings),
        "steps": recipe.steps,
        "labels": [recipe.labels.kind, recipe.labels.scale],
        "evaluation": recipe.evaluation.plain(),
        "normaliser": normaliser_digest(recipe.normaliser),
        "average": recipe.average,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "data": fingerprint(data),
        "log_every": log_every,
    }
    if recipe.best_so_far is not None:
        identity["best_so_far"] = [recipe.best_so_far.every, recipe.best_so_far.patience]
    return identity


def distill(
    plan: Plan | Recipe,
    data: RealData | Split,
    *,
    key: int | jax.Array = 0,
    workdir: str | pathlib.Path | None = None,
    artefacts: ArtefactStore | str | pathlib.Path | None = None,
    log_every: int = 10,
    save_seconds: float = 60.0,
    save_every: int | None = None,
    show_progress: bool | None = None,
    callbacks: Sequence[Callable[[int, Mapping[str, float]], None]] = (),
) -> DistilledSet:
    """Distils `data` by a plan or a complete recipe and returns the finished set.

    With a `workdir` the run writes metrics, checkpoints and the set there; the same call continues
    a run that was stopped or killed, to the same bits as if it had not been. A folder belongs to
    one recipe: after replacing its objective, optimizer or best_so_far by hand, change its
    `settings` too.

    Args:
      plan: what to do, see `dd_jax.methods.plan` and `dd_jax.methods.recipe`. What a plan needs is
        taken from the store of artefacts, or made there first.
      data: the real set; of a `Split`, its training part. Images kept as NumPy arrays
        (`from_arrays(..., device=False)`) are fed from the host step by step.
      key: an integer seed or a typed PRNG key.
      workdir: the run's folder, or None to keep nothing.
      artefacts: the store or its folder; by default DD_JAX_ARTEFACTS, or the folder "artefacts"
        beside the run's, or runs/artefacts.
      log_every: steps between two lines of metrics.jsonl.
      save_seconds: seconds between checkpoints.
      save_every: steps between checkpoints, as well.
      show_progress: a progress bar; by default when there is somebody to see it.
      callbacks: called as f(step, metrics) at each logged step; one that raises is switched off.

    Returns:
      The `DistilledSet`, also saved as workdir/set.safetensors.

    Raises:
      ConfigError, CheckpointError: before anything compiles; the latter also where a stored
        expert turns out to be damaged.
      NonFiniteError: loss, gradient or parameters stopped being finite; the state before is saved,
        and non_finite.json says what that step was fed with.
      DeviceMemoryError: the device is out of memory; the last checkpoint is kept.
      RunStopped: SIGINT or SIGTERM came; a checkpoint is saved.

    Example:
      >>> import numpy as np, dd_jax as dd
      >>> rng = np.random.default_rng(0)
      >>> real = dd.data.from_arrays(rng.integers(0, 256, (8, 8, 8, 1), np.uint8),
      ...                            np.arange(8) % 2)
      >>> plan = dd.methods.plan("dm", real, depth=1, width=4, batch_size=4, steps=2)
      >>> distill(plan, real, show_progress=False).synthetic.images.shape
      (2, 8, 8, 1)
    """
    check_plan(plan)
    real, key = training_part(data), as_key(key)
    cadence = run_options(log_every=log_every, save_seconds=save_seconds, save_every=save_every,
                          callbacks=callbacks)
    refuse_other_run(plan, real, workdir)
    recipe = complete(plan, real, artefacts=store_beside(artefacts, workdir),
                      show_progress=show_progress)
    identity = identity_of(recipe, real, key, log_every)
    with (open_workdir(workdir, identity) as folder, StopSignals() as stop, own_dtypes(),
          refusals_told()):
        d = distillation(recipe)
        like, from_host = _checked_state(d, key, real)
        restored = folder.restore(like)
        stepper = Stepper(d, real, from_host=from_host)
        step, state = restored or (0, _first_state(recipe, d, stepper, key, real))
        over = step == recipe.steps or stepper.ended(state)
        repeated = over and folder.has_set()
        if not over:
            with memory_told(recipe, stepper):
                report_memory(recipe, stepper, state, real, from_host=from_host,
                              quiet=show_progress is False)
        writer = folder.metrics(step)
        state = _loop(recipe, stepper, state, step, folder=folder, writer=writer, stop=stop,
                      cadence=cadence, show_progress=show_progress,
                      callbacks=[safe_callback(c) for c in callbacks])
        finished = _finished(recipe, d, state, real, key)
        if folder.path is not None:
            save(folder.path / "set.safetensors", finished)
            if not repeated:
                folder.note_time(int(state.step))
        return finished


def _first_state(recipe: Recipe, d: Distillation, stepper: Stepper, key, real) -> DistillState:
    # Copied, because the loop donates its state and may not donate what the user holds.
    # Not jitted for images on the host: jit would send all of them to the device.
    init = d.init if isinstance(real.images, np.ndarray) else jax.jit(d.init)
    with memory_told(recipe, stepper):
        return jax.tree.map(jnp.copy, init(key, real))


def _finished(recipe: Recipe, d: Distillation, state: DistillState, real: RealData, key):
    synthetic = d.decode(state)
    if recipe.finalise is not None:
        synthetic = recipe.finalise(synthetic, real, jax.random.fold_in(key, _FINALISE))
    told = {} if recipe.best_so_far is None else best_notes(state, recipe.steps)
    return package(recipe, synthetic, real, notes=told, stored=_stored_form(recipe, state),
                   stored_bytes=stored_bytes(state.params))


def _loop(recipe, stepper, state, step, *, folder, writer: MetricsWriter | None, stop,
          cadence: Cadence, show_progress, callbacks) -> DistillState:
    saved_at, saved_step = time.monotonic(), step

    def kept() -> str:
        return f"; step {saved_step} is saved" if folder.path else ""

    def over() -> bool:
        return step == recipe.steps or stepper.ended(state)

    stalled, ended = StallWatch(recipe.method), over()
    bar = progress(recipe.steps, start=step, enabled=show_progress, description=recipe.method)
    with bar as shown:
        while not ended:
            limit = cadence.steps_until_save(step, at_most=recipe.steps - step)
            with memory_told(recipe, stepper, f" after step {step} of {recipe.steps}{kept()}"):
                state, buffers = stepper.advance(state, limit)
            stalled.see(buffers)
            begun, count, finite = step, len(buffers["loss"]), bool(buffers["finite"][-1])
            step += count if finite else count - 1
            ended = over()
            for i in range(count):
                at = begun + i + 1
                metrics = {k: float(v[i]) for k, v in buffers.items() if k != "finite"}
                if cadence.logs(at) or (i == count - 1 and (ended or not finite)):
                    if writer is not None:
                        writer.write(at, metrics)
                    for callback in callbacks:
                        callback(at, metrics)
            due = cadence.saves(step, seconds=time.monotonic() - saved_at)
            due = due or stop.requested or not finite or ended
            if due and step > saved_step and _finite(state):
                folder.save(step, state)
                saved_at, saved_step = time.monotonic(), step
            if not finite:
                told = folder.note_failure(step + 1, metrics,
                                           functools.partial(stepper.rows, state),
                                           saved=saved_step)
                raise NonFiniteError(
                    f"step {step + 1} of {recipe.method} was not finite "
                    f"(loss {buffers['loss'][-1]}, gradient norm {buffers['grad_norm'][-1]}){told}",
                    fix="lower the learning rate; the state before that step is kept",
                )
            shown.update(step, loss=float(buffers["loss"][-1]))
            if stop.requested and not ended:
                again = "run the same command again to continue"
                raise RunStopped(
                    f"stopped by {stop.signal_name} after step {step} of {recipe.steps}{kept()}",
                    fix=again if folder.path else "give a workdir to keep what is computed",
                )
    return state


def _stored_form(recipe: Recipe, state: DistillState) -> Stored | None:
    """What the set is decoded from, where it is that and nothing has changed it since."""
    record = recipe.parameterization.record
    changed = recipe.average is not None or recipe.finalise is not None
    if record is None or changed or recipe.labels.kind == "classes":
        return None
    params = state.params if recipe.best_so_far is None else state.best.params
    return Stored(*record, jax.tree.map(lambda x: np.asarray(x, np.float32), params))


@jax.jit
def _finite(state: DistillState) -> jax.Array:
    return all_finite(state)


def package(
    recipe: Recipe, synthetic: SyntheticSet, data: RealData, *, stored_bytes: int | None = None,
    notes: Mapping[str, Any] | None = None, stored: Stored | None = None,
) -> DistilledSet:
    """Puts a synthetic set together with everything that is needed to use it.

    Args:
      recipe: that made it.
      synthetic: the arrays; uint8 images stay as they are, and labels [M, K] of kind "classes"
        become the number of the class that is largest.
      data: the real set, for its description and fingerprint.
      stored_bytes: of the parameters that the arrays were decoded from; noted where given.
      notes: what else the set's recipe shall tell.
      stored: these parameters, where the file shall hold them in place of the images.

    Returns:
      A `DistilledSet`, ready for `store.save` and `evaluate`.
    """
    noted = {"shown_images": int(synthetic.images.shape[0])}
    if stored_bytes is not None:
        noted["stored_bytes"] = int(stored_bytes)
    noted |= {**recipe.notes, **(notes or {})}
    citation = noted.pop("citation", "")
    return DistilledSet(
        synthetic=_packed(synthetic, recipe.labels.kind),
        normaliser=recipe.normaliser,
        label_kind=recipe.labels.kind,
        label_scale=recipe.labels.scale,
        spec=data.spec,
        recipe={"method": recipe.method, **recipe.settings, "steps": recipe.steps, **noted},
        evaluation=recipe.evaluation.plain(),
        versions=versions(),
        data_fingerprint=fingerprint(data),
        citation=citation,
        stored=stored,
    )


def _packed(synthetic: SyntheticSet, kind: str) -> SyntheticSet:
    """The arrays in the dtypes of a `DistilledSet`."""
    images, labels = np.asarray(synthetic.images), np.asarray(synthetic.labels)
    packed = jax.tree.map(lambda x: np.asarray(x, np.float32), synthetic)
    if kind == "classes":
        packed = packed._replace(
            labels=(labels if labels.ndim == 1 else labels.argmax(axis=1)).astype(np.int32))
    return packed._replace(images=images) if images.dtype == np.uint8 else packed
