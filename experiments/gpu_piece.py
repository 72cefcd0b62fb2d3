"""One piece of a long distillation: it goes on from the last piece, saves, and tests at the end.

A run's folder holds the state (state.safetensors), what has been done (progress.json), the
finished set and small artefacts. A state that is too large to be carried is saved without that of
the objective, which for FRePo and RCIG is their pool of networks: the next piece begins with a new
pool, as the run did, and progress.json tells at which steps. All other runs go on to the same bits.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dd_jax as dd
from dd_jax import evaluate, store
from dd_jax.distill import DistillState
from dd_jax.distill.best_so_far import best_notes
from dd_jax.distill.stepper import Stepper
from dd_jax.errors import CheckpointError, NonFiniteError
from dd_jax.run.jsonfile import read_json, write_json
from dd_jax.store import read_arrays, read_card, write_arrays
from dd_jax.store.record import DistilledSet
from dd_jax.synthetic import stored_bytes

STATE, PROGRESS, SET = "state.safetensors", "progress.json", "set.safetensors"
WHOLE_BYTES = 15 * 2**20
SAVE_SECONDS = 120.0
_ANEW, _FINALISE, _TEST, _RANDOM = range(3000, 3004)


def save_state(path: pathlib.Path, state: DistillState, *, most: int = WHOLE_BYTES) -> bool:
    """Writes a state, without the objective's where it has more than so many bytes in all.

    Returns:
      Whether it is whole.
    """
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) <= most
    kept = state if whole else state._replace(objective=())
    write_arrays(path, kept, {"whole": whole, "step": int(state.step)})
    return whole


def restore_state(path: pathlib.Path, recipe: dd.Recipe, d: dd.Distillation, key: jax.Array,
                  data) -> tuple[DistillState, bool]:
    """The state of a file, and whether the objective's had to be made anew.

    Raises:
      CheckpointError: damaged, or of another run.
    """
    like = jax.eval_shape(d.init, key, data)
    if read_card(path).get("whole"):
        return jax.tree.map(jnp.array, read_arrays(path, like)), False
    state = jax.tree.map(jnp.array, read_arrays(path, like._replace(objective=())))
    anew = jax.random.fold_in(jax.random.fold_in(key, _ANEW), state.step)
    shown = d.decode(state)
    return state._replace(objective=jax.jit(recipe.objective.init)(anew, shown)), True


class Run:
    """A run in pieces, in its folder.

    Args:
      folder: made if missing.
      identity: JSON-able; another one is refused.
      clock: () -> seconds.
    """

    def __init__(self, folder: pathlib.Path, identity: Mapping[str, Any],
                 clock: Callable[[], float] = time.monotonic):
        self.folder, self.clock = folder, clock
        folder.mkdir(parents=True, exist_ok=True)
        self.progress: dict[str, Any] = {"identity": dict(identity), "step": 0, "pieces": [],
                                         "distilled": False, "anew": [], "tests": {}}
        try:
            found = read_json(folder / PROGRESS)
        except FileNotFoundError:
            return
        except ValueError as error:
            raise CheckpointError(f"{folder / PROGRESS} is damaged: {error}",
                                  fix="begin again in another folder") from error
        if found.get("identity") != self.progress["identity"]:
            raise CheckpointError(f"{folder} holds a run of other settings",
                                  fix="use another --folder, or the settings of that run")
        self.progress |= found

    def begin(self, piece: int) -> None:
        """Notes the beginning of a piece, or of the last one again where it was cut off.

        Raises:
          CheckpointError: it is not the next.
        """
        pieces = self.progress["pieces"]
        done = [p["piece"] for p in pieces if p["ended"]]
        if piece != len(done) + 1:
            raise CheckpointError(
                f"piece {piece} of {self.folder.name} follows {len(done)} finished ones",
                fix=f"run piece {len(done) + 1}, or carry what piece {piece - 1} left")
        at = self.progress["step"]
        pieces.append({"piece": piece, "from": at, "to": at, "ended": False})

    @property
    def current(self) -> dict[str, Any]:
        """What is told of the piece that runs."""
        return self.progress["pieces"][-1]

    def keep(self) -> None:
        """Writes the progress."""
        write_json(self.folder / PROGRESS, self.progress)

    def distil(self, recipe: dd.Recipe, data, *, seed: int, until: float,
               saved: Callable[[], None] = lambda: None) -> bool:
        """Steps until the run or the time is over; whether the set is there.

        Args:
          recipe: complete.
          data: the real training set.
          seed: of the run.
          until: by the clock.
          saved: called after each save.

        Raises:
          NonFiniteError: a step was not finite; the last state saved is kept.
        """
        if self.progress["distilled"]:
            return True
        d, key, path = dd.distillation(recipe), jax.random.key(seed), self.folder / STATE
        if path.exists():
            state, anew = restore_state(path, recipe, d, key, data)
            if anew:
                self.progress["anew"].append(int(state.step))
        else:
            state = jax.tree.map(jnp.copy, jax.jit(d.init)(key, data))
        stepper = Stepper(d, data, from_host=False)
        begun = self.clock()
        stepper.compile(state)
        self.current["compile_seconds"] = round(self.clock() - begun, 1)
        state = self._steps(recipe, stepper, state, until=until, saved=saved)
        if int(state.step) < recipe.steps and not stepper.ended(state):
            return False
        synthetic = d.decode(state)
        if recipe.finalise is not None:
            synthetic = recipe.finalise(synthetic, data, jax.random.fold_in(key, _FINALISE))
        told = {} if recipe.best_so_far is None else best_notes(state, recipe.steps)
        store.save(self.folder / SET, dd.distill.package(
            recipe, synthetic, data, stored_bytes=stored_bytes(state.params), notes=told))
        self.progress["distilled"] = True
        self.keep()
        saved()
        return True

    def _steps(self, recipe, stepper: Stepper, state, *, until: float, saved) -> DistillState:
        step, begun, saved_at = int(state.step), self.clock(), self.clock()
        first = step
        while step < recipe.steps and not stepper.ended(state):
            if step > first and self.clock() >= until:
                break
            state, buffers = stepper.advance(state, recipe.steps - step)
            if not bool(buffers["finite"][-1]):
                raise NonFiniteError(f"step {step + len(buffers['loss'])} of {recipe.method} was "
                                     "not finite", fix="the state saved before it is kept")
            step += len(buffers["loss"])
            self.current["loss"] = float(buffers["loss"][-1])
            if self.clock() - saved_at > SAVE_SECONDS:
                self._save(state, step, begun)
                saved()
                saved_at = self.clock()
        self._save(state, step, begun)
        saved()
        return state

    def _save(self, state, step: int, begun: float) -> None:
        seconds = self.clock() - begun
        self.current["whole"] = save_state(self.folder / STATE, state)
        done = step - self.current["from"]
        self.current.update({"to": step, "seconds": round(seconds, 1),
                             "steps_per_second": done / max(seconds, 1e-9)})
        self.progress["step"] = step
        self.keep()

    def test(self, recipe: dd.Recipe, protocol: evaluate.Protocol, data, *, seed: int, full: bool,
             until: float, length: float, saved: Callable[[], None] = lambda: None) -> bool:
        """Tests networks one by one until all or the time is over; whether all are tested.

        A test is begun where the longest like it so far would end in time. Where there was none
        nobody knows that: it is begun in the first half of a piece, or where nothing else was done
        in it.

        Args:
          recipe, protocol, data: of the test; `data` is the `Split`.
          seed: of the run.
          full: whether one network is trained on all real images.
          until: by the clock.
          length: seconds of the whole piece.
          saved: called after each test.
        """
        distilled, tests = store.load(self.folder / SET), self.progress["tests"]
        idle = self.current["to"] == self.current["from"]
        for name in unit_names(protocol, full):
            if name in tests:
                continue
            whole = name.startswith("full")
            longest = max((test["seconds"] for other, test in tests.items()
                           if other.startswith("full") == whole), default=None)
            left = until - self.clock()
            fits = left > length / 2 if longest is None else left > 1.1 * longest
            if left <= 0 or not (fits or idle):
                return False
            begun = self.clock()
            accuracy = unit(name, distilled, recipe, protocol, data, seed)
            tests[name] = {"accuracy": accuracy, "seconds": round(self.clock() - begun, 1)}
            idle = False
            self.keep()
            saved()
        return True

    def end(self) -> None:
        """Notes that the piece came to its end."""
        self.current["ended"] = True
        self.keep()


def unit_names(protocol: evaluate.Protocol, full: bool) -> list[str]:
    """What is tested, in order: networks on the set, on random images, and on all of them.

    Example:
      >>> unit_names(evaluate.protocol("dc", seeds=1), True)
      ['set_0', 'random_0', 'full_0']
    """
    return [f"{kind}_{i}" for kind, count in
            (("set", protocol.seeds), ("random", protocol.seeds), ("full", int(full)))
            for i in range(count)]


def unit(name: str, distilled: DistilledSet, recipe: dd.Recipe, protocol: evaluate.Protocol, data,
         seed: int) -> float:
    """Accuracy of one network; the number in its name tells its key apart."""
    kind, _, index = name.partition("_")
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _TEST), int(index))
    if kind == "set":
        return evaluate.evaluate(distilled, data.test, protocol=protocol, key=key, seeds=1).mean
    common = dict(normaliser=recipe.normaliser, protocol=protocol, label_kind=recipe.labels.kind,
                  label_scale=recipe.labels.scale, seeds=1, key=jax.random.fold_in(key, _RANDOM))
    if kind == "full":
        return evaluate.evaluate_full(data, **common).mean
    return evaluate.evaluate_random(data, ipc=evaluate.budget(distilled),
                                    shown=distilled.synthetic.images.shape[0], **common).mean


def figures(run: Run, distilled: DistilledSet, protocol: evaluate.Protocol) -> dict[str, Any]:
    """What a result file tells of finished tests."""
    kinds: dict[str, list[float]] = {"set": [], "random": [], "full": []}
    seconds = 0.0
    for name, test in run.progress["tests"].items():
        kinds[name.partition("_")[0]].append(test["accuracy"])
        seconds += test["seconds"] if name.startswith("set") else 0.0
    own, random, full = (np.asarray(kinds[kind]) for kind in ("set", "random", "full"))
    return dict(
        accuracy_mean=float(own.mean()), accuracy_std=float(own.std()), networks=len(own),
        accuracies=own.tolist(), random_mean=float(random.mean()), random_std=float(random.std()),
        full_mean=float(full.mean()) if len(full) else None, evaluate_seconds=round(seconds, 1),
        test_steps=protocol.steps(distilled.synthetic.images.shape[0]),
        distill_seconds=round(sum(p.get("seconds", 0.0) for p in run.progress["pieces"]), 1),
        steps=run.progress["step"], pool_made_anew_at=run.progress["anew"])
