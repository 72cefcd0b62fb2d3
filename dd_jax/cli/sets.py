"""`methods`, `show` and `export`: looking at what there is and taking it elsewhere."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Annotated

import tyro

from dd_jax.cli.options import parse
from dd_jax.cli.tables import print_table
from dd_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Methods:
    """Options of `methods`.

    Attributes:
      json: print JSON, with all settings and published figures.
    """

    json: bool = False


@dataclasses.dataclass(frozen=True)
class Show:
    """Options of `show`.

    Attributes:
      file: a set that this library saved.
      grid: also write its picture to this file.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    grid: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Export:
    """Options of `export`.

    Attributes:
      file: a set that this library saved.
      to: "npz", "png", "safetensors" or "torch".
      out: the file or folder to write; beside the set by default.
      overwrite: replace what is there.
    """

    file: Annotated[pathlib.Path, tyro.conf.Positional]
    to: str = "npz"
    out: pathlib.Path | None = None
    overwrite: bool = False


def _described(method) -> dict:
    from dd_jax.methods import preset

    presets = {name: dataclasses.asdict(preset(method, name, 1))
               for name in method.settings.presets}
    published = [{"data": data, "ipc": ipc, **figure._asdict()}
                 for (data, ipc), figure in sorted(method.published.items())]
    return {"name": method.name, "title": method.title, "citation": method.citation,
            "settings": presets, "published": published}


def run_methods(words: Sequence[str]) -> int:
    """Lists the methods; returns the exit code."""
    from dd_jax.methods import METHODS

    options = parse(Methods, words, program="python -m dd_jax methods")
    described = [_described(METHODS[name]) for name in sorted(METHODS)]
    if options.json:
        print(json.dumps(described, indent=2))
        return 0
    print_table(("method", "title", "protocols"),
                [(d["name"], d["title"], ", ".join(d["settings"])) for d in described])
    return 0


def run_show(words: Sequence[str]) -> int:
    """Describes a saved set; returns the exit code."""
    from dd_jax import store

    options = parse(Show, words, program="python -m dd_jax show")
    if options.grid is not None:
        from dd_jax.report.result import check_place

        check_place(options.grid)
    distilled = store.load(options.file)
    print(store.summary(distilled))
    if options.grid:
        from dd_jax.report import save_grid

        save_grid(options.grid, distilled)
        print(f"picture: {options.grid}")
    return 0


def _same_file(a: pathlib.Path, b: pathlib.Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:  # one of them is not there
        return False


def run_export(words: Sequence[str]) -> int:
    """Exports a saved set; returns the exit code."""
    from dd_jax import store

    options = parse(Export, words, program="python -m dd_jax export")
    distilled = store.load(options.file)
    endings = {"npz": ".npz", "png": "_png", "safetensors": "_plain.safetensors",
               "torch": "_torch.safetensors"}
    ending = endings.get(options.to, "")
    out = options.out or options.file.with_name(options.file.stem + ending)
    inside = (out / name for name in ("distilled.npz", "distilled.safetensors"))
    if any(_same_file(place, options.file) for place in (out, *inside)):
        raise ConfigError(f"{out} is the set itself", fix="choose another place by --out")
    for path in store.export(distilled, options.to, out, overwrite=options.overwrite):
        print(path)
    return 0
