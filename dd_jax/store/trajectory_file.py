"""One expert's trajectory as one safetensors file, of which single rows can be read and trusted.

The file holds the tensor "parameters" [E + 1, P], F32 or BF16, as `dd_jax.store.rows` writes it,
with what the expert is; any safetensors reader opens it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dd_jax.errors import (
    CheckpointError,
    ConfigError,
    DDJaxError,
    NonFiniteError,
    require_whole,
    unknown,
)
from dd_jax.store.atomic import PathLike
from dd_jax.store.rows import RowFile, RowFormat, open_rows, read_row, write_rows

__all__ = ["DTYPES", "ExpertFile", "expert_name", "open_expert", "read_row", "write_expert"]

DTYPES = ("float32", "bfloat16")


def _refused(path: pathlib.Path, problem: str) -> DDJaxError:
    return CheckpointError(f"{path} {problem}",
                           fix=f"delete {path.name} and run the same command: the expert is "
                           "trained again (delete artefact.json beside it, too, if there is one)")


FORMAT = RowFormat("dd_jax.expert", version=1, tensor="parameters", axes=2, dtypes=DTYPES,
                   what="an expert", error=CheckpointError, refused=_refused)


class ExpertFile(RowFile):
    """A file of rows that are the parameters of one network after each epoch, [E + 1, P]."""

    __slots__ = ()

    @property
    def rows(self) -> int:
        """E + 1."""
        return self.shape[0]

    @property
    def parameters(self) -> int:
        """P."""
        return self.shape[1]

    @property
    def identity(self) -> dict[str, Any]:
        """All that must be equal among the experts of one folder."""
        return {**self.description, "dtype": self.dtype, "epochs": self.rows - 1}


def expert_name(index: int) -> str:
    """The file name of an expert: "expert_00003.safetensors"."""
    return f"expert_{index:05d}.safetensors"


def write_expert(
    folder: PathLike,
    index: int,
    trajectory: np.ndarray,
    *,
    description: Mapping[str, Any],
    dtype: str = "float32",
) -> pathlib.Path:
    """Writes the trajectory of one expert, whole or not at all.

    Args:
      folder: made if missing.
      index: the expert's number; its file is replaced if it exists.
      trajectory: [E + 1, P] float, rows in the order of epochs.
      description: JSON-able, such as `store.trajectories.describe` returns.
      dtype: "float32", or "bfloat16" for half the bytes and three decimal digits.

    Returns:
      The path of the file.

    Raises:
      ConfigError: no trajectory, or an unknown dtype.
      NonFiniteError: the expert diverged; names the first epoch.
      SetFileError: the folder cannot be written.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> path = write_expert(folder, 0, np.zeros((3, 2), np.float32), description={})
      >>> read_row(open_expert(path), 2).tolist()
      [0.0, 0.0]
    """
    require_whole("index", index, least=0, example=0)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    array = np.asarray(trajectory)
    if array.ndim != 2 or len(array) < 2 or not array.shape[1]:
        raise ConfigError(f"the trajectory has shape {array.shape}, expected [E + 1, P] with E of "
                          "at least 1", fix="pass what train_expert returns")
    finite = np.array([np.isfinite(row).all() for row in array])
    if not finite.all():
        epoch = int(np.argmin(finite))
        raise NonFiniteError(f"expert {index} was not finite after epoch {epoch}",
                             fix="lower the experts' learning rate")
    path = pathlib.Path(folder) / expert_name(index)
    return write_rows(path, array, FORMAT, dtype=dtype, description=description)


def open_expert(path: PathLike) -> ExpertFile:
    """Reads and checks the header of an expert's file; touches no row.

    Args:
      path: a file that `write_expert` wrote.

    Returns:
      The `ExpertFile`.

    Raises:
      CheckpointError: cut short, damaged, foreign or of a newer release, with what to do.
    """
    found = ExpertFile(*open_rows(path, FORMAT))
    if found.rows < 2:
        raise _refused(found.path, "is damaged: it has no epoch")
    return found
