"""`python -m dd_jax artefacts`: what has been made from real data, and what may go."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from dd_jax.cli.options import parse
from dd_jax.cli.tables import print_table
from dd_jax.errors import ConfigError
from dd_jax.store.artefacts import ArtefactStore, Entry

_SHORT, _LINE = 24, 120  # of a value that is shown as it is, and of all of them
_UNSAID = ("protocol", "name")  # on the way to a value of a protocol


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
        (entry.name, f"{entry.bytes / 1e6:.2f}", "yes" if entry.finished else "no", made_by)
        for entry, made_by in zip(entries, _made_by(entries))])
    print(f"in {store.folder}")
    return 0


def _made_by(entries: Sequence[Entry]) -> list[str]:
    """What each was made by: the data, what tells it from others of its kind, and some more."""
    told, kinds = [], [entry.name.rpartition("-")[0] for entry in entries]
    values = [_flat({**entry.settings, "seed": entry.seed, "data": entry.data})
              if entry.settings or entry.data else {} for entry in entries]
    for kind, own in zip(kinds, values):
        alike = [other for k, other in zip(kinds, values) if k == kind and other]
        differs = {name for name in own if any(own[name] != other.get(name) for other in alike)}
        first = ["data", *sorted(differs - {"data"})] if own else []
        rest = [name for name in sorted(own) if name not in first and len(own[name]) <= _SHORT]
        line = ", ".join(f"{name} {_cut(own[name])}" for name in first)
        for name in rest:
            more = f", {name} {own[name]}"
            line += more if own[name] and len(line + more) <= _LINE else ""
        told.append(line)
    return told


def _flat(settings: Mapping[str, Any], before: tuple[str, ...] = ()) -> dict[str, str]:
    """Settings by the words that lead to them, such as "network width"; values as text."""
    found = {}
    for name, value in settings.items():
        words = (*before, *(() if name in _UNSAID else (name,)))
        if isinstance(value, Mapping):
            found |= _flat(value, words)
        else:
            found[" ".join(words)] = "" if value is None else str(value)
    return found


def _cut(text: str) -> str:
    """A short value as it is; of a long one, such as a hash or a list, what tells it apart."""
    return text if len(text) <= _SHORT else hashlib.sha256(text.encode()).hexdigest()[:8]
