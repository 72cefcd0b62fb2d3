"""A folder of expert trajectories: safe, checksummed, read row by row, refused where it cannot fit.

One file for each expert, see `trajectory_file`. The folder may grow while it is in use; what was
opened stays what it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dd_jax.data import Normaliser, fingerprint, to_tensors
from dd_jax.errors import CheckpointError, ConfigError, unknown
from dd_jax.store.atomic import PathLike
from dd_jax.store.envelope import canonical, differences, plain
from dd_jax.store.trajectory_file import ExpertFile, open_expert, read_row, write_expert
from dd_jax.train.experts import flat_layout
from dd_jax.types import Network, PyTree, RealData

__all__ = ["Trajectories", "describe", "differences", "expert_files", "normaliser_digest",
           "open_trajectories", "remove_unfinished", "write_expert"]

_WHOLE = re.compile(r"expert_(\d{5,})\.safetensors")
_NONE = "name a folder that experts were trained into, or leave experts out to have them made"
_PARTIAL = re.compile(r"\.expert_\d{5,}\.safetensors\.[0-9a-f]+\.tmp")


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectories:
    """An open folder of experts; hashable by identity.

    Attributes:
      folder: where the files are.
      experts: numbers of the complete experts; `read` counts positions in this tuple.
      epochs: E of each of them.
      parameters: P.
      description: what they have in common, as `describe` returns it.
    """

    folder: pathlib.Path
    experts: tuple[int, ...]
    epochs: int
    parameters: int
    description: Mapping[str, Any]
    _files: tuple[ExpertFile, ...] = dataclasses.field(repr=False)
    _verified: set[tuple[int, int]] = dataclasses.field(repr=False, default_factory=set)

    @property
    def digest(self) -> str:
        """SHA-256 of what the experts are and of all their rows, 64 hexadecimal digits."""
        whole = [[i, file.identity, file.hashes] for i, file in zip(self.experts, self._files)]
        return hashlib.sha256(canonical(whole).encode()).hexdigest()

    def read(self, expert: Any, epoch: Any) -> np.ndarray:
        """Reads the parameters of experts after epochs; only these rows, each checked once.

        Args:
          expert: [...] integers in 0..len(experts) - 1, positions in `experts`.
          epoch: [...] integers in 0..E, of a shape that broadcasts with it; 0 is the start.

        Returns:
          [..., P] float32.

        Raises:
          ConfigError: not whole numbers, or outside their range.
          CheckpointError: a row is damaged or gone.
        """
        expert = _indices("expert", expert, len(self.experts) - 1)
        epoch = _indices("epoch", epoch, self.epochs)
        try:
            pairs = np.broadcast_arrays(expert, epoch)
        except ValueError:
            raise ConfigError(f"expert has shape {expert.shape} and epoch {epoch.shape}",
                              fix="pass one epoch for each expert") from None
        rows = np.empty((pairs[0].size, self.parameters), np.float32)
        for place, (position, row) in enumerate(zip(*(p.ravel().tolist() for p in pairs))):
            rows[place] = self._row(position, row)
        return rows.reshape(*pairs[0].shape, self.parameters)

    def _row(self, position: int, row: int) -> np.ndarray:
        fresh = (position, row) not in self._verified
        found = read_row(self._files[position], row, verify=fresh)
        self._verified.add((position, row))
        return found


def normaliser_digest(normaliser: Normaliser) -> str:
    """SHA-256 of a normaliser's kind and arrays, 64 hexadecimal digits.

    Example:
      >>> from dd_jax.data import identity
      >>> normaliser_digest(identity((4, 4, 1))) == normaliser_digest(identity((8, 8, 1)))
      True
    """
    digest = hashlib.sha256(normaliser.kind.encode())
    for name, array in sorted(to_tensors(normaliser)[0].items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def describe(
    network: Network, data: RealData, *, normaliser: Normaliser, training: Mapping[str, Any]
) -> dict[str, Any]:
    """Says of an expert what must be equal among the experts of one folder.

    Args:
      network: the architecture.
      data: the real set, with its images.
      normaliser: that the expert sees them through.
      training: JSON-able settings.

    Returns:
      JSON-able: architecture, its parameters' names and shapes in flat order, normaliser,
      data and training.

    Raises:
      SetFileError: a setting that JSON cannot hold.

    Example:
      >>> from dd_jax import data, nets
      >>> real = data.from_arrays(np.zeros((2, 4, 4), np.uint8), [0, 1])
      >>> describe(nets.mlp(real.spec, width=3, depth=2), real, training={"epochs": 2},
      ...          normaliser=data.identity((4, 4, 1)))["parameters"][0]
      ['head/bias', [2]]
    """
    params = jax.eval_shape(lambda: network.init(jax.random.key(0)))["params"]
    return {
        "architecture": network.name,
        "parameters": plain(flat_layout(params), "parameters"),
        "normaliser": {"kind": normaliser.kind, "sha256": normaliser_digest(normaliser)},
        "image_shape": list(data.spec.shape),
        "num_classes": data.spec.num_classes,
        "data": {"name": data.spec.name, "sha256": fingerprint(data)},
        "training": plain(dict(training), "training"),
    }


def expert_files(folder: PathLike) -> dict[int, ExpertFile]:
    """The experts of a folder by number, their headers checked; unfinished files are left out.

    Warns of unfinished files.

    Raises:
      CheckpointError: no such folder, or a file that is damaged.
    """
    folder = pathlib.Path(folder)
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder} is no folder that can be read ({error.strerror})",
                              fix=_NONE) from error
    partial = [name for name in names if _PARTIAL.fullmatch(name)]
    if partial:
        warnings.warn(f"{folder}: skipped unfinished files, of an expert that is being written or "
                      "of a training that was killed: " + ", ".join(partial), stacklevel=3)
    found = {int(match[1]): folder / match[0] for match in map(_WHOLE.fullmatch, names) if match}
    return {index: open_expert(path) for index, path in sorted(found.items())}


def remove_unfinished(folder: PathLike) -> None:
    """Deletes what a killed training left half written; for whoever holds the folder's lock."""
    for path in pathlib.Path(folder).iterdir():
        if _PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)


def open_trajectories(
    folder: PathLike,
    *,
    like: PyTree | None = None,
    normaliser: Normaliser | None = None,
    needed_epochs: int | None = None,
    verify: str = "header",
) -> Trajectories:
    """Opens a folder of experts, and refuses at once what would fail in the middle of a run.

    Args:
      folder: that `train_experts` filled.
      like: the parameter tree of the student, arrays or shapes, for example
        `jax.eval_shape(network.init, key)["params"]`.
      normaliser: of the distillation.
      needed_epochs: the last epoch that will be asked for: latest start + span.
      verify: "header" checks sizes now and each row when it is first read; "all" reads every row.

    Returns:
      The open `Trajectories`.

    Raises:
      CheckpointError: no experts; a damaged file; experts of different kinds; or another
        architecture, normaliser or length than asked for, with what is there.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> for i in range(2):
      ...   path = write_expert(folder, i, np.full((4, 5), i, np.float32), description={})
      >>> experts = open_trajectories(folder, needed_epochs=3)
      >>> experts.read([0, 1, 1], [3, 0, 2])[:, 0].tolist()
      [0.0, 1.0, 1.0]
    """
    if verify not in ("header", "all"):
        raise unknown("verify", verify, ("header", "all"))
    files = expert_files(folder)
    if not files:
        raise CheckpointError(f"{folder} holds no complete expert", fix=_NONE)
    first, *others = files
    for index in others:
        odd = differences(files[first].identity, files[index].identity)
        if odd:
            raise CheckpointError(
                f"{folder} mixes experts of different kinds: " + "; ".join(
                    f"{name} is {a} in expert {first}, {b} in expert {index}"
                    for name, a, b in odd),
                fix="keep each kind in a folder of its own")
    one = files[first]
    opened = Trajectories(pathlib.Path(folder), tuple(files), one.rows - 1, one.parameters,
                          one.description, tuple(files.values()))
    if like is not None:
        _check_architecture(opened, like)
    if normaliser is not None:
        _check_normaliser(opened, normaliser)
    if needed_epochs is not None and needed_epochs > opened.epochs:
        raise CheckpointError(
            f"the experts of {folder} have {opened.epochs} epochs, start + span asks for "
            f"{needed_epochs}", fix=f"lower the latest start by {needed_epochs - opened.epochs}, "
            f"or train experts with epochs={needed_epochs}")
    if verify == "all":
        for position in range(len(files)):
            for row in range(one.rows):
                opened._row(position, row)
    return opened


def _check_architecture(opened: Trajectories, like: PyTree) -> None:
    wanted = plain(flat_layout(like), "like")
    size = sum(math.prod(shape) for _, shape in wanted)
    held = opened.description.get("parameters")
    if held == wanted and opened.parameters == size:
        return
    name = opened.description.get("architecture")
    have, want = ([f"{n} {s}" for n, s in layout] for layout in (held or [], wanted))
    odd = [entry for entry in have if entry not in want][:3] or have[:3]
    other = [entry for entry in want if entry not in have][:3] or want[:3]
    raise CheckpointError(
        f"the experts of {opened.folder} are networks {name!r} of {opened.parameters} parameters "
        f"with {', '.join(odd)}; the one asked for has {size} with {', '.join(other)}",
        fix="build the network that the experts were, or train experts of this one")


def _check_normaliser(opened: Trajectories, normaliser: Normaliser) -> None:
    held = opened.description.get("normaliser") or {}
    if held.get("sha256") != normaliser_digest(normaliser):
        same = held.get("kind") == normaliser.kind
        raise CheckpointError(
            f"the experts of {opened.folder} saw images through the normaliser "
            f"{held.get('kind')!r}, this run uses {normaliser.kind!r}"
            + (" fitted on other images" if same else ""),
            fix="use the normaliser of the experts, or train experts with this one")


def _indices(name: str, values: Any, most: int) -> np.ndarray:
    array = np.asarray(values)
    whole = np.issubdtype(array.dtype, np.integer)
    if not whole or (array.size and not (array.min() >= 0 and array.max() <= most)):
        raise ConfigError(f"{name} is {values!r}, expected whole numbers in 0..{most}",
                          fix=f"draw {name} in that range")
    return array
