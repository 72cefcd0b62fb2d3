"""A recipe: all that a paper chooses, as one frozen record."""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from dd_jax.data.normalise import Normaliser
from dd_jax.distill.selection import Selection, check_selection
from dd_jax.errors import ConfigError, require_whole, unknown
from dd_jax.evaluate.protocol import Protocol
from dd_jax.evaluate.read_out import ReadOut
from dd_jax.synthetic import LABEL_KINDS
from dd_jax.types import (
    Network,
    Objective,
    Parameterization,
    PyTree,
    RealData,
    SyntheticSet,
)

# Under a label of its own: a plain fold_in(key, 1) is the key of a consumer of the outer loop.
_PARTS = 2000


class Preparation(NamedTuple):
    """What has to be computed from the real data before a recipe is complete: teachers, experts.

    Attributes:
      compute: (data, key) -> pytree of arrays; run once, kept in the run's folder.
      complete: (recipe, arrays) -> Recipe, whose functions close over the arrays.
    """

    compute: Callable[[RealData, jax.Array], PyTree]
    complete: Callable[[Recipe, PyTree], Recipe]


class StoredPreparation(NamedTuple):
    """A preparation too large for memory, such as the trajectories of experts: a folder of files.

    Attributes:
      write: (data, key, folder, show_progress=None) -> hash of what the folder holds then; goes on
        where a run that was stopped left off.
      complete: (recipe, folder) -> Recipe, which reads from the folder.
    """

    write: Callable[..., str]
    complete: Callable[[Recipe, pathlib.Path], Recipe]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to distil, from where, by which objective, with which optimiser.

    `dataclasses.replace` is the way to vary one.

    Attributes:
      method: the paper's acronym in lower case.
      settings: every value that shaped the recipe, JSON-able; identifies a run.
      initialise: (data, key) -> SyntheticSet, the start.
      parameterization: how the set is stored and learned.
      objective: the scalar to minimise.
      optimizer: one optax transformation for every learned leaf, or a mapping from the
        parameterization's group names ("images", "labels", ...) to transformations.
      steps: outer steps.
      normaliser: from stored real images to model space.
      label_kind, label_scale: what the set's labels mean.
      evaluation: the protocol that its networks are tested by.
      citation: how to cite the paper.
      average: decay of an exponential moving average of the parameters, with bias correction; the
        average is what `decode` shows and what is saved. None: the last parameters.
      selection: how the best set of the run is found, which is then what is saved; None: the last.
      finalise: (set, data, key) -> set, applied once to the finished set, such as a relabelling.
      read_out: the kernel regression that the method's authors predict with, if they do.
      prepare: what is computed first, see `Preparation` and `StoredPreparation`; None for a
        complete recipe.
      prepared: hash of the arrays that a preparation has built in; part of a run's identity.
      turns: steps of one iteration, where classes or terms have theirs one after another.
      lighter: what to change -> () -> the recipe with another derivative of the same state that
        needs less memory; named where a step does not fit.
      restarted: (network -> the network with other initial parameters, a name for these) -> the
        preparation whose networks start there, to `replace` the recipe's with; None where it
        cannot.
      fixed_images: why its images cannot be added to or mirrored, if so: such a recipe has no
        stages and is not flipped.
      real_batches: whether steps look at real images, which could be chosen.
    """

    method: str
    settings: Mapping[str, Any]
    initialise: Callable[[RealData, jax.Array], SyntheticSet]
    parameterization: Parameterization
    objective: Objective
    optimizer: optax.GradientTransformation | Mapping[str, optax.GradientTransformation]
    steps: int
    normaliser: Normaliser
    evaluation: Protocol
    label_kind: str = "one_hot"
    label_scale: float = 1.0
    citation: str = ""
    average: float | None = None
    selection: Selection | None = None
    finalise: Callable[[SyntheticSet, RealData, jax.Array], SyntheticSet] | None = None
    read_out: ReadOut | None = None
    prepare: Preparation | StoredPreparation | None = None
    prepared: str = ""
    turns: int = 1
    lighter: Mapping[str, Callable[[], Recipe]] = dataclasses.field(default_factory=dict)
    restarted: Callable[[Callable[[Network], Network], str], StoredPreparation] | None = None
    fixed_images: str = ""
    real_batches: bool = True

    def __post_init__(self):
        if self.label_kind not in LABEL_KINDS:
            raise unknown("label kind", self.label_kind, LABEL_KINDS)
        require_whole("steps", self.steps)
        require_whole("turns", self.turns)
        number = isinstance(self.average, (int, float))
        if self.average is not None and not (number and 0.0 < self.average < 1.0):
            raise ConfigError(f"average is {self.average!r}, expected a decay between 0 and 1",
                              fix="pass average=0.99 or average=None")
        if self.selection is not None:
            check_selection(self.selection)
            if self.selection.objective is self.objective and (self.turns > 1 or self.prepare):
                why = "takes turns" if self.turns > 1 else "has yet to be prepared"
                raise ConfigError(f"the selection's objective is {self.method}'s own, which {why}",
                                  fix="select by an objective of the whole set")


def prepared(
    recipe: Recipe, data: RealData, key: jax.Array, *, show_progress: bool | None = None
) -> Recipe:
    """The complete recipe: computes what it needs first, if anything.

    Args:
      recipe: any recipe.
      data: the real training set.
      key: the run's PRNG key: `distill(recipe, data, key=key)` prepares the same.
      show_progress: of the training of experts; by default when there is somebody to see it.

    Returns:
      A recipe without `prepare`; the same one where there was nothing to do. What is stored in a
      folder lies in a temporary one until the process ends.
    """
    if recipe.prepare is None:
        return recipe
    if isinstance(recipe.prepare, StoredPreparation):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="dd_jax_"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return completed_in(folder, recipe, data, key, show_progress=show_progress)
    return completed(recipe, recipe.prepare.compute(data, preparation_key(key)))


def preparation_key(key: jax.Array) -> jax.Array:
    """The preparation's own key, apart from the consumers that the outer loop folds in."""
    return jax.random.fold_in(key, 1000)


def part_key(key: jax.Array, part: int) -> jax.Array:
    """The key of a stage or block of a run in several parts, of which part 0 has the run's own."""
    return key if part == 0 else jax.random.fold_in(jax.random.fold_in(key, _PARTS), part)


def completed_in(
    folder: pathlib.Path, recipe: Recipe, data: RealData, key: jax.Array, *,
    show_progress: bool | None = None,
) -> Recipe:
    """The recipe with its stored preparation, written to a folder or found there."""
    digest = recipe.prepare.write(data, preparation_key(key), folder, show_progress=show_progress)
    complete = recipe.prepare.complete(recipe, folder)
    return dataclasses.replace(complete, prepare=None, prepared=digest)


def completed(recipe: Recipe, arrays: PyTree) -> Recipe:
    """The recipe with its preparation's arrays built in."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        digest.update(np.asarray(leaf).tobytes())
    complete = recipe.prepare.complete(recipe, arrays)
    return dataclasses.replace(complete, prepare=None, prepared=digest.hexdigest())


def grouped_optimizer(recipe: Recipe, params: PyTree) -> optax.GradientTransformation:
    """The recipe's optimiser by group, with the constant leaves never updated.

    Raises:
      ConfigError: a group of the parameterization has no optimiser.
    """
    groups = recipe.parameterization.groups(params)
    names = set(jax.tree.leaves(groups)) - {"constant"}
    if isinstance(recipe.optimizer, Mapping):
        by_group = dict(recipe.optimizer)
        missing = names - set(by_group)
        if missing:
            raise ConfigError(f"no optimizer for the group {sorted(missing)[0]!r}",
                              fix=f"give one for each of {sorted(names)}")
    else:
        by_group = {name: recipe.optimizer for name in names}
    if "constant" not in jax.tree.leaves(groups) and len(names) == 1:
        return by_group[names.pop()]
    by_group["constant"] = optax.set_to_zero()
    return optax.partition(by_group, groups)
