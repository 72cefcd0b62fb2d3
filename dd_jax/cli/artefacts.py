"""`python -m dd_jax artefacts`: what has been made from real data, and what may go."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from dd_jax.cli.options import parse
from dd_jax.cli.tables import print_table
from dd_jax.errors import ConfigError
from dd_jax.store.artefacts import ArtefactStore


@dataclasses.dataclass(frozen=True)
class Artefacts:
    """Options of `artefacts`.

    Attributes:
      store: the folder; by default DD_JAX_ARTEFACTS, or runs/artefacts.
      prune: delete those that were never finished.
      remove: delete the one of this name, so that it is made again when something asks for it.
      all: with --prune, delete the finished ones as well.
      json: print JSON, with all settings.
    """

    store: pathlib.Path | None = None
    prune: bool = False
    remove: str | None = None
    all: bool = False
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Parses the words after `artefacts` and does it; returns the exit code."""
    options = parse(Artefacts, words, program="python -m dd_jax artefacts")
    if options.all and not options.prune:
        raise ConfigError("--all says which artefacts --prune deletes", fix="pass --prune --all")
    if options.prune and options.remove is not None:
        raise ConfigError("--prune and --remove are two commands", fix="call one after the other")
    store = ArtefactStore(options.store)
    if options.remove is not None:
        store.remove(options.remove)
        print(f"removed {options.remove}")
        return 0
    if options.prune:
        gone = store.prune(lambda entry: entry.finished and not options.all)
        for entry in gone:
            print(f"removed {entry.name}")
        print(f"{len(gone)} removed, {sum(entry.bytes for entry in gone) / 1e6:.1f} MB")
        return 0
    entries = store.entries()
    if options.json:
        print(json.dumps([entry._asdict() for entry in entries], indent=2))
        return 0
    if not entries:
        print(f"no artefacts in {store.folder}")
        return 0
    print_table(("artefact", "MB", "finished", "made by"), [
        (entry.name, f"{entry.bytes / 1e6:.2f}", "yes" if entry.finished else "no",
         _short(entry.settings)) for entry in entries])
    print(f"in {store.folder}")
    return 0


def _short(settings) -> str:
    """The settings that a person tells artefacts apart by."""
    shown = {name: value for name, value in settings.items()
             if isinstance(value, (int, float, str)) and value != "" and len(str(value)) <= 24}
    return ", ".join(f"{name} {value}" for name, value in sorted(shown.items()))[:120]
