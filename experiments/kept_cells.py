"""The file of cells that an experiment goes on with."""

from __future__ import annotations

import json
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dd_jax.errors import DataError, DDJaxError
from dd_jax.report.result import device_name, git_commit, write_result
from dd_jax.store.envelope import read_json_file
from dd_jax.versions import versions
from experiments.quiet import load_now


def read_cells(
    path: pathlib.Path, check: Callable[[dict[str, Any]], Any], *, under: str = "cells",
    told: str = "cells of this experiment", fix: str = "name another file with --json",
) -> list[dict[str, Any]]:
    """The cells of an earlier run; none where there is no file.

    Args:
      path: of the JSON file.
      check: raises a usual error for a cell that is none; may bring one up to date in place.
      under: the name under which the file has them.
      told, fix: what they are called where they are not, and what to do then.

    Raises:
      DataError: the file holds something else.
    """
    if not path.exists():
        return []
    try:
        cells = list(read_json_file(path, str(path), fix=fix, follow=True)[under])
        for cell in cells:
            check(cell)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, DDJaxError) as error:
        raise DataError(f"{path} does not hold {told}", fix=fix) from error
    return cells


def identity(told: Mapping[str, Any]) -> str:
    """What a cell depends on, as text.

    Example:
      >>> identity({"b": (1, 2), "a": None})
      '{"a": null, "b": [1, 2]}'
    """
    return json.dumps(dict(told), sort_keys=True)


class Kept:
    """The cells of a file by what they depend on; what it lacks is measured and written at once.

    Args:
      path: of the JSON file; cells that nobody asks for stay in it.
      program: the experiment's module, for the command that each cell tells.
      check: as for `read_cells`.

    Raises:
      DataError: the file holds something else.
    """

    def __init__(self, path: pathlib.Path, program: str, check: Callable[[dict[str, Any]], Any]):
        self.path, self.program = path, program
        self.known = {identity(cell["told"]): cell for cell in read_cells(path, check)}
        self._beside: dict[str, Any] = {}

    def note(self, **beside: Any) -> None:
        """Writes something about the whole table beside its cells."""
        self._beside |= beside
        self._write()

    def cell(
        self, told: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]
    ) -> tuple[dict[str, Any], bool]:
        """(the cell of that name, whether it was there).

        Args:
          told: what it depends on, plain values.
          measure: () -> its figures, called where it is not there. With them are written the
            command, the versions, the device, and the load before and after.
        """
        name = identity(told)
        there = name in self.known
        if not there:
            load = load_now()
            figures = measure()
            self.known[name] = {
                "told": dict(told), **figures, "load": [round(load, 2), round(load_now(), 2)],
                "device": device_name(), "versions": versions(), "git_commit": git_commit(),
                "command": shlex.join(["python", "-m", self.program, *sys.argv[1:]])}
            self._write()
        return self.known[name], there

    def _write(self) -> None:
        write_result(self.path, {"cells": list(self.known.values()), **self._beside})
