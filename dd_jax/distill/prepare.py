"""Runs a recipe's preparation once and keeps what it gives in the run's folder."""

from __future__ import annotations

import json
import pathlib
import zipfile

import jax
import numpy as np

from dd_jax.data import fingerprint
from dd_jax.distill.recipe import (
    Recipe,
    StoredPreparation,
    completed,
    completed_in,
    preparation_key,
    prepared,
)
from dd_jax.errors import CheckpointError
from dd_jax.run.identity import plain
from dd_jax.store.atomic import write_atomically
from dd_jax.types import RealData

_FILE, _FOLDER = "prepared.npz", "prepared"


def prepare_in(
    folder: pathlib.Path | None, recipe: Recipe, data: RealData, key: jax.Array, *,
    show_progress: bool | None = None,
) -> Recipe:
    """`prepared(recipe, ...)`, whose arrays are read from `folder` where an equal run left them.

    Args:
      folder: of the run; None keeps nothing.
      recipe, data: as for `prepared`.
      key: the run's key.
      show_progress: as for `prepared`.

    Returns:
      The complete recipe.

    Raises:
      CheckpointError: the file is damaged or belongs to another run.
    """
    if recipe.prepare is None or folder is None:
        return prepared(recipe, data, key, show_progress=show_progress)
    if isinstance(recipe.prepare, StoredPreparation):
        return completed_in(folder / _FOLDER, recipe, data, key, show_progress=show_progress)
    own_key = preparation_key(key)
    path = folder / _FILE
    identity = json.dumps({
        "method": recipe.method, "settings": plain(recipe.settings), "data": fingerprint(data),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
    }, sort_keys=True)
    like, treedef = jax.tree.flatten(jax.eval_shape(recipe.prepare.compute, data, own_key))
    if not path.exists():
        arrays = jax.tree.leaves(recipe.prepare.compute(data, own_key))
        stored = {f"leaf{i}": np.asarray(x) for i, x in enumerate(arrays)}
        stored["identity"] = np.array(identity)
        write_atomically(path, lambda file: np.savez(file, **stored))
    try:
        with np.load(path, allow_pickle=False) as stored:
            same = str(stored["identity"]) == identity
            arrays = [stored[f"leaf{i}"] for i in range(len(like))]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is damaged: {error}",
                              fix="delete this file; it is computed again") from error
    fits = [(a.shape, a.dtype) for a in arrays] == [(a.shape, a.dtype) for a in like]
    if not same or not fits:
        raise CheckpointError(f"{path} belongs to a run with other settings",
                              fix="use another folder, or delete this file")
    return completed(recipe, jax.tree.unflatten(treedef, [jax.numpy.asarray(a) for a in arrays]))
