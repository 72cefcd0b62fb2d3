"""The file of cells that an experiment goes on with."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from dd_jax.errors import DataError, DDJaxError
from dd_jax.store.envelope import read_json_file


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
