"""Saved sets against architectures that they were not made with, in one table.

    python -m experiments.cross_architecture runs/a/set.safetensors runs/b/set.safetensors
    python -m experiments.cross_architecture runs/*/set.safetensors --networks mlp,vgg11 --width 16

To be run from the checkout's root. Each set is tested under the protocol that travels with it, on
its own architecture and on those that are asked for. Every cell is written as soon as it is there;
the same command again, or one with more sets or architectures, computes only what is missing.

Time is that of the evaluation: on two cores the wide architectures take hours at the field's
thousand epochs, so give --width and --epochs there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import tyro

from dd_jax import evaluate, store
from dd_jax.cli.allocator import keep_memory
from dd_jax.cli.tables import print_table
from dd_jax.data import fingerprint, load
from dd_jax.data.sources import load_named
from dd_jax.errors import ConfigError, DDJaxError
from dd_jax.report.result import device_name, git_commit, percent
from dd_jax.store.atomic import write_atomically
from dd_jax.types import RealData
from dd_jax.versions import versions
from experiments import kept_cells

# What a cell is the accuracy of; cells that agree in these are the same.
IDENTITY = ("set_sha256", "test_sha256", "protocol", "seeds", "seed")


@dataclasses.dataclass(frozen=True)
class Options:
    """Which sets and architectures.

    Attributes:
      sets: files that this library saved.
      networks: comma-separated names; a set's own architecture is always tested as well.
      seeds: networks to train of each architecture.
      seed: of the networks.
      epochs: instead of each set's own.
      width: of every architecture but the set's own, instead of the architecture's usual one.
      data: whose test part is used, as on the command line; by default, for each set, the data
        that it was distilled from, found by its name.
      json: where the cells are kept, and looked for.
    """

    sets: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional]
    networks: str = "convnet,mlp,resnet18,vgg11,alexnet"
    seeds: int = 3
    seed: int = 1
    epochs: int | None = None
    width: int | None = None
    data: str | None = None
    json: pathlib.Path = pathlib.Path("runs/cross_architecture.json")


class Row(NamedTuple):
    """One set with its tests: the first protocol is the set's own architecture."""

    label: str
    sha256: str
    distilled: store.DistilledSet
    test: RealData
    test_sha256: str
    protocols: tuple[evaluate.Protocol, ...]


def asked(options: Options) -> list[str]:
    """The names of the architectures that were asked for, each once."""
    return list(dict.fromkeys(name.strip() for name in options.networks.split(",")))


def protocols(distilled: store.DistilledSet, options: Options) -> tuple[evaluate.Protocol, ...]:
    """The set's own protocol, then the same on every other architecture."""
    own = evaluate.own_protocol(distilled)
    if options.epochs is not None:
        own = own.varied(epochs=options.epochs)
    others = [evaluate.for_network(own, name) for name in asked(options)
              if name != own.network.name]
    if options.width is not None:
        others = [p.varied(width=options.width) for p in others]
    return own, *others


def prepare(options: Options) -> list[Row]:
    """Reads the sets and their test data, and refuses here what would fail hours later.

    Raises:
      ConfigError: no set, an unknown architecture, or one that the images are too small for.
      SetFileError: a damaged set, or test data that does not fit it.
    """
    if not options.sets:
        raise ConfigError("no set is given", fix="name at least one .safetensors file")
    if options.seeds < 1:
        raise ConfigError(f"seeds is {options.seeds}, expected at least 1", fix="pass --seeds 3")
    rows, tests = [], {}
    for path in options.sets:
        distilled = store.load(path)
        name = options.data or distilled.spec.name
        if name not in tests:
            test = (load(name) if options.data else load_named(name)).test
            tests[name] = (test, fingerprint(test))
        row = Row("/".join(path.parts[-2:]), hashlib.sha256(path.read_bytes()).hexdigest(),
                  distilled, *tests[name], protocols(distilled, options))
        for protocol in row.protocols:
            evaluate.check(distilled, tests[name][0], protocol=protocol)
        rows.append(row)
    return rows


def check_cell(cell: dict[str, Any]) -> None:
    """Raises a usual error for what is no cell of this experiment; mends one of older versions."""
    # Files of older versions name its fields flatly.
    cell["protocol"] = evaluate.Protocol.from_plain(cell["protocol"]).plain()
    identity(cell), cell["accuracies"]
    float(cell["accuracy_mean"]), float(cell["accuracy_std"])


def read_cells(path: pathlib.Path) -> list[dict[str, Any]]:
    """The cells of an earlier run, see `kept_cells.read_cells`."""
    return kept_cells.read_cells(path, check_cell)


def identity(cell: Mapping[str, Any]) -> str:
    """The fields of `IDENTITY` as text."""
    return json.dumps({name: cell[name] for name in IDENTITY}, sort_keys=True)


def wanted(row: Row, protocol: evaluate.Protocol, options: Options) -> dict[str, Any]:
    """The part of a cell that is known before it is computed."""
    return {
        "set": row.label, "set_sha256": row.sha256, "method": row.distilled.recipe.get("method"),
        "data": row.test.spec.name, "test_sha256": row.test_sha256,
        "network": protocol.network.name, "own": protocol == row.protocols[0],
        "protocol": protocol.plain(), "seeds": options.seeds, "seed": options.seed,
    }


def measure(row: Row, protocol: evaluate.Protocol, options: Options) -> dict[str, Any]:
    """One cell: accuracies, fractions in [0, 1], and what is needed to get them again."""
    tested = evaluate.evaluate_progressive(row.distilled, row.test, protocol=protocol,
                                           seeds=options.seeds, key=jax.random.key(options.seed))
    return {
        **wanted(row, protocol, options), "accuracies": tested.accuracies.tolist(),
        "accuracy_mean": tested.mean, "accuracy_std": tested.std,
        "seconds": round(tested.seconds, 1), "device": device_name(), "versions": versions(),
        "git_commit": git_commit(),
        "command": shlex.join(["python", "-m", "experiments.cross_architecture", *sys.argv[1:]]),
    }


def fill(rows: Sequence[Row], options: Options) -> list[list[dict[str, Any]]]:
    """The cells of each row in the order of its protocols, computed where the file lacks them.

    Cells of other sets or settings stay in the file.
    """
    known = {identity(cell): cell for cell in read_cells(options.json)}
    for row in rows:
        for protocol in row.protocols:
            name = identity(wanted(row, protocol, options))
            note = f"in {options.json} already"
            if name not in known:
                known[name] = measure(row, protocol, options)
                text = json.dumps({"cells": list(known.values())}, indent=2, allow_nan=False)
                write_atomically(options.json, lambda file, text=text: file.write(text.encode()))
                note = f"{known[name]['seconds']:.0f} s"
            cell = known[name]
            print(f"{row.label} {protocol.network.name} (width {protocol.network.width}): "
                  f"{percent(cell['accuracy_mean'], cell['accuracy_std'])}, {note}", flush=True)
    return [[known[identity(wanted(row, p, options))] for p in row.protocols] for row in rows]


def drop_and_worst(cells: Sequence[Mapping[str, Any]]) -> tuple[float, str] | None:
    """Mean loss of accuracy against the first cell, and the name of the worst of the others.

    Example:
      >>> cells = [dict(network=n, accuracy_mean=a) for n, a in zip("abc", (0.75, 0.5, 0.25))]
      >>> drop_and_worst(cells)
      (0.375, 'c')
    """
    own, *others = cells
    if not others:
        return None
    drops = [own["accuracy_mean"] - cell["accuracy_mean"] for cell in others]
    return sum(drops) / len(drops), min(others, key=lambda cell: cell["accuracy_mean"])["network"]


def table(labels: Sequence[str], cells: Sequence[Sequence[Mapping[str, Any]]],
          networks: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Titles and rows: accuracies and the mean drop in percent, own architecture first."""
    titles = ("set", "own architecture", *networks, "mean drop", "worst")
    rows = []
    for label, (own, *others) in zip(labels, cells):
        texts = {cell["network"]: percent(cell["accuracy_mean"], cell["accuracy_std"])
                 for cell in (own, *others)}
        found = drop_and_worst((own, *others))
        drop, worst = ("-", "-") if found is None else (percent(found[0]), found[1])
        rows.append((label, f"{own['network']} {texts[own['network']]}",
                     *(texts[name] for name in networks), drop, worst))
    return titles, rows


def main(options: Options) -> None:
    """Fills the table and prints it."""
    rows = prepare(options)
    cells = fill(rows, options)
    print_table(*table([row.label for row in rows], cells, asked(options)))


if __name__ == "__main__":
    keep_memory()
    try:
        main(tyro.cli(Options))
    except DDJaxError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
