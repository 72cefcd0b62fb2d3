"""A quoted figure as one JSON file, and the table made of such files."""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dd_jax.data.places import prove_writable, stands_at
from dd_jax.errors import ConfigError, DataError, printable
from dd_jax.store.atomic import write_atomically
from dd_jax.store.envelope import read_json_file
from dd_jax.versions import versions

FIELDS = ("method", "data", "ipc", "protocol", "accuracy_mean", "accuracy_std", "networks",
          "random_mean", "random_std", "full_mean", "published", "distill_seconds",
          "evaluate_seconds", "steps", "bytes", "device", "command", "seed", "versions",
          "git_commit")


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, or None outside one.

    "-dirty" is appended where tracked files have been changed since.
    """
    root = pathlib.Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True,
                               timeout=10, check=True)
        return found.stdout.strip()

    try:
        # An installed copy may lie inside somebody else's repository.
        if pathlib.Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def device_name() -> str:
    """Kind and number of the devices in use, for example "cpu x1"."""
    devices = jax.devices()
    return f"{devices[0].device_kind} x{len(devices)}"


def build_result(**fields: Any) -> dict[str, Any]:
    """A result with every field of `FIELDS`; device, versions and commit are filled in here.

    Accuracies are fractions in [0, 1]; seconds are wall time; bytes those of the set's arrays.

    Raises:
      DataError: a field is missing.
    """
    fields = {"device": device_name(), "versions": versions(), "git_commit": git_commit(), **fields}
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise DataError(f"the result lacks {', '.join(missing)}", fix="give every field of FIELDS")
    extra = [name for name in fields if name not in FIELDS]
    return {name: fields[name] for name in (*FIELDS, *extra)}


def write_result(path: str | pathlib.Path, result: Mapping[str, Any]) -> pathlib.Path:
    """Writes a result as indented JSON, whole or not at all, making the folder; returns the path.

    A number that is not finite becomes null and its name stands under "non_finite"; what JSON does
    not know becomes text. Hours of work are not lost for one of them.

    Raises:
      SetFileError: it cannot be written.
    """
    bad: list[str] = []
    told = {str(name): _finite(value, str(name), bad) for name, value in result.items()}
    if bad:
        told["non_finite"] = bad
    text = json.dumps(told, indent=2, allow_nan=False, default=str) + "\n"
    return write_atomically(path, lambda file: file.write(text.encode()))


def _finite(value: Any, name: str, bad: list[str]) -> Any:
    """The value as JSON can hold it, names of what it cannot added to `bad`."""
    if isinstance(value, Mapping):
        return {str(key): _finite(part, f"{name}.{key}", bad) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part, f"{name}[{i}]", bad) for i, part in enumerate(value)]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        bad.append(name)
        return None
    return value


def check_place(path: str | pathlib.Path) -> None:
    """Refuses a place where no result could be written, before there is one.

    Raises:
      ConfigError: as said.
    """
    path = pathlib.Path(path).absolute()
    advice = "name a file in a folder that is writable"
    found = [(place, stands_at(place)) for place in (path, *path.parents)]
    there, kind = next(pair for pair in found[1:] if pair[1] != "nothing")
    if found[0][1] not in ("nothing", "file") or kind != "folder":
        raise ConfigError(f"no file can be written at {path}", fix=advice)
    try:
        prove_writable(there)
    except OSError as error:
        raise ConfigError(f"no file can be written at {path} ({error.strerror or error})",
                          fix=advice) from None


def read_result(path: str | pathlib.Path) -> dict[str, Any]:
    """Reads a result and checks that it has every field, those of the table as they should be.

    Raises:
      DataError: not JSON, or fields are missing or hold what they cannot.
    """
    try:
        result = read_json_file(path, "it", fix="write it again", error=DataError, follow=True)
    except (FileNotFoundError, DataError) as error:
        raise DataError(f"{path} is not a result file: {getattr(error, 'message', error)}",
                        fix="write it again") from error
    missing = [name for name in FIELDS if name not in result]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}", fix="write it again")
    for name, fits in _KINDS.items():
        if not fits(result.get(name)):
            raise DataError(f"{path} has the {name} {str(result.get(name))[:60]!r}, which is none",
                            fix="write it again")
    return result


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _MOST


def _perhaps(value: Any) -> bool:
    return value is None or _number(value)


def _figure(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and _number(value.get("mean"))
                             and "std" in value and _perhaps(value["std"]))


def _loads(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and _number(value.get("before"))
                             and _number(value.get("most")))


_MOST = 1e15
# Field that the table is made of -> whether a value may be it.
_KINDS = {
    **dict.fromkeys(("method", "data", "protocol", "device"), _text),
    **dict.fromkeys(("ipc", "steps", "bytes"), _number),
    **dict.fromkeys(("accuracy_mean", "accuracy_std", "random_mean", "random_std", "full_mean",
                     "distill_seconds", "read_out_mean", "read_out_random_mean",
                     "read_out_random_std", "evaluate_seconds", "test_steps"), _perhaps),
    "load": _loads,
    **dict.fromkeys(("published", "published_read_out"), _figure),
}


def percent(mean: float | None, std: float | None = None) -> str:
    """"75.6 ± 0.3" from fractions; a dash for None.

    Example:
      >>> percent(0.756, 0.003)
      '75.6 ± 0.3'
    """
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


COLUMNS = ("data", "images per class", "method", "protocol", "accuracy", "random", "full data",
           "ratio", "published", "kernel read-out", "random read-out", "published read-out",
           "distilled in", "steps", "tested in", "test steps", "load", "bytes", "device")


def _published(figure: Mapping[str, Any] | None) -> str:
    """A published accuracy, stored in percent, as text."""
    if not figure:
        return "-"
    return f"{figure['mean']:.1f}" + ("" if figure["std"] is None else f" ± {figure['std']:.1f}")


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.0f} s"


def _count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _load(load: Mapping[str, float] | None) -> str:
    """The load average of a machine before a run, and its largest during it, as text."""
    return "-" if not load else f"{load['before']:.1f}, {load['most']:.1f}"


def row(result: Mapping[str, Any]) -> tuple[str, ...]:
    """One result as the texts of a table row, in the order of `COLUMNS`; accuracies in percent."""
    full, mean = result["full_mean"], result["accuracy_mean"]
    return (
        result["data"], str(result["ipc"]), result["method"], result["protocol"],
        percent(mean, result["accuracy_std"]),
        percent(result["random_mean"], result["random_std"]),
        percent(full),
        "-" if not full or mean is None else f"{mean / full:.2f}",
        _published(result["published"]),
        percent(result.get("read_out_mean")),
        percent(result.get("read_out_random_mean"), result.get("read_out_random_std")),
        _published(result.get("published_read_out")),
        _seconds(result["distill_seconds"]), str(result["steps"]),
        _seconds(result["evaluate_seconds"]), _count(result.get("test_steps")),
        _load(result.get("load")), f"{result['bytes']:,}", result["device"],
    )


def table(results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of results, without the columns in which no row has anything."""
    rows = [row(result) for result in results]
    kept = [i for i in range(len(COLUMNS)) if any(cells[i] != "-" for cells in rows)]
    return [COLUMNS[i] for i in kept], [[cells[i] for i in kept] for cells in rows]


def markdown_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Results as a Markdown table, sorted by data, budget, method and protocol."""
    ordered = sorted(results, key=lambda r: (r["data"], r["ipc"], r["method"], r["protocol"]))
    return markdown(*table(ordered))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Titles and rows of text as a Markdown table.

    Example:
      >>> print(markdown(("loss", "accuracy"), [("a|b", "75.6")]), end="")
      | loss | accuracy |
      | --- | --- |
      | a\\|b | 75.6 |
    """
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    cells = ([printable(cell).replace("|", "\\|") for cell in row] for row in rows)
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines) + "\n"
