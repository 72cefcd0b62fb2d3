"""What is computed once from real data, kept in a folder by what made it, and shared.

The address of an artefact is a hash of its kind, its settings, the data, its seed and the addresses
of what it needs itself; never of a path or a clock. So every run that asks for the same finds it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dd_jax.backend import SWITCHES, own_dtypes, switches
from dd_jax.data import fingerprint
from dd_jax.data.places import stands_at
from dd_jax.errors import CheckpointError, ConfigError, SetFileError
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.envelope import canonical, header_hash, plain, read_json_file, sealed
from dd_jax.store.lock import locked
from dd_jax.types import RealData
from dd_jax.versions import versions

FORMAT = 1
MANIFEST = "artefact.json"
FOLDER_VARIABLE = "DD_JAX_ARTEFACTS"
DEFAULT_FOLDER = pathlib.Path("runs") / "artefacts"
OTHERS = "made by another"
_KIND = re.compile(r"[A-Za-z]\w*")
_NAME = re.compile(r"[A-Za-z]\w*-[0-9a-f]{24}")
_FILE = re.compile(r"(?!\.)[^/\\\x00]{1,255}")  # in the artefact's folder, nowhere else
_log = logging.getLogger("dd_jax")


@dataclasses.dataclass(frozen=True, eq=False)
class Artefact:
    """Something that is computed once from real data: experts, a teacher, a whitening.

    Attributes:
      kind: what it is, part of its folder's name: "teacher".
      settings: JSON-able; every value that shapes it.
      make: (data, key, folder, needs, show_progress=None) -> None, fills the folder with files; of
        a folder that a killed process left, it goes on where that one stopped.
      open: (folder) -> what `Plan.build` and the artefacts that need this one are given.
      needs: artefacts that `make` is given, opened, by these names.
      seed: of the key that `make` is given.
      parts: files that are asked for, where a finished folder may hold fewer: then `make` goes on
        in it, and leaves those that are there alone.
      stand_in: () -> something of the same shapes, which recipes are tried out with before it is
        made; None where there is no such thing.
      value: what is given, for an artefact that is there already and never made; `settings` then
        have to say what it holds.
    """

    kind: str
    settings: Mapping[str, Any]
    make: Callable[..., None] | None = None
    open: Callable[[pathlib.Path], Any] | None = None
    needs: Mapping[str, Artefact] = dataclasses.field(default_factory=dict)
    seed: int = 0
    parts: Sequence[str] = ()
    stand_in: Callable[[], Any] | None = None
    value: Any = None

    def __post_init__(self):
        if not _KIND.fullmatch(self.kind):
            raise ConfigError(f"the kind of an artefact is {self.kind!r}, expected a name",
                              fix="use letters, digits and underscores")

    def address(self, data: RealData) -> str:
        """24 hexadecimal digits, equal for equal kind, settings, data, seed and needs."""
        return self._address(fingerprint(data))

    def identity(self, data_hash: str) -> dict[str, Any]:
        """What the address is the hash of; JAX's switches only where they are not as it comes."""
        odd = {name: now for name, now in switches().items() if now != SWITCHES[name]}
        return {
            "format": FORMAT, "kind": self.kind, "settings": plain(dict(self.settings), "settings"),
            "data": data_hash, "seed": self.seed,
            "needs": {name: need._address(data_hash) for name, need in self.needs.items()},
            **({"switches": odd} if odd else {}),
        }

    def _address(self, data_hash: str) -> str:
        return hashlib.sha256(canonical(self.identity(data_hash)).encode()).hexdigest()[:24]


class _Asked(NamedTuple):
    """How `ArtefactStore.get` was asked: see there."""

    show_progress: bool | None
    stop: Callable[[], None] | None


class Entry(NamedTuple):
    """One artefact as it lies in a store.

    Attributes:
      name: of its folder, the kind and the address.
      bytes: of its files.
      finished: whether it was made to its end.
      settings: that made it; empty where it is not finished or not readable.
      data: name of the real data, or the first digits of their hash, which older ones hold alone.
      seed: of what was made; None where that is not known.
    """

    name: str
    bytes: int
    finished: bool
    settings: Mapping[str, Any]
    data: str = ""
    seed: int | None = None


class Got(NamedTuple):
    """How an artefact came to whoever asked for it, which `str` says in a line.

    Attributes:
      name: of its folder.
      how: "made", "reused", or "made by another" process that was waited for.
      seconds: that it took.

    Example:
      >>> str(Got("experts-0a", "made by another", 61.2))
      'experts-0a: waited 61.2 s, made by another'
    """

    name: str
    how: str
    seconds: float

    def __str__(self) -> str:
        if self.how == OTHERS:
            return f"{self.name}: waited {self.seconds:.1f} s, {self.how}"
        return f"{self.name}: {self.how} in {self.seconds:.1f} s"


class ArtefactStore:
    """A folder of artefacts, shared by every run that is given it.

    Args:
      folder: of the artefacts; by default what the environment variable DD_JAX_ARTEFACTS says, or
        runs/artefacts in the current folder. It is made when something is written.

    Attributes:
      folder: the same, absolute.
      report: [Got, ...] of what this object was asked for.

    Example:
      >>> import tempfile, numpy as np
      >>> from dd_jax.data import from_arrays
      >>> def make(data, key, folder, needs, show_progress=None):
      ...     _ = (folder / "mean.txt").write_text(str(int(np.mean(data.images))))
      >>> mean = Artefact("mean", {}, make, lambda folder: (folder / "mean.txt").read_text())
      >>> store = ArtefactStore(tempfile.mkdtemp())
      >>> data = from_arrays(np.full((2, 2, 2), 7, np.uint8), [0, 1])
      >>> [store.get(mean, data) for _ in range(2)], [how for _, how, _ in store.report]
      (['7', '7'], ['made', 'reused'])
    """

    def __init__(self, folder: PathLike | None = None):
        chosen = folder or os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER
        self.folder = pathlib.Path(chosen).absolute()
        self.report: list[Got] = []

    def get(
        self, artefact: Artefact, data: RealData, *, show_progress: bool | None = None,
        stop: Callable[[], None] | None = None,
    ) -> Any:
        """What the artefact holds: opened where it was made before, otherwise made now.

        A second process that asks for what is being made waits for the first one.

        Args:
          artefact: what is wanted.
          data: the real set that it is computed from.
          show_progress: of its making, which is told on stderr before it begins; False is silent.
          stop: called while another process makes it; its error ends the waiting.

        Raises:
          CheckpointError: the stored files are damaged; they are made again only when asked, by
            `remove`.
        """
        if artefact.make is None:
            return artefact.value
        return self._get(artefact, data, fingerprint(data), _Asked(show_progress, stop))

    def has(self, artefact: Artefact, data: RealData) -> bool:
        """Whether the artefact would be opened and not made.

        Raises:
          CheckpointError: what is there is damaged.
        """
        name = f"{artefact.kind}-{artefact.address(data)}"
        return artefact.make is None or _finished(self.folder / name, artefact)

    def _get(self, artefact: Artefact, data: RealData, data_hash: str, asked: _Asked) -> Any:
        if artefact.make is None:
            return artefact.value
        start, how = time.perf_counter(), "reused"
        name = f"{artefact.kind}-{artefact._address(data_hash)}"
        path = self.folder / name
        if not _finished(path, artefact):
            needs = {key: self._get(need, data, data_hash, asked)
                     for key, need in artefact.needs.items()}
            how = self._make(artefact, data, data_hash, path, needs, asked)
        _check_files(path)
        try:
            with own_dtypes():  # as it was made
                value = artefact.open(path)
        except (CheckpointError, SetFileError) as error:
            if "--remove" in error.fix:
                raise
            raise damaged(path, error.message) from error
        self.report.append(Got(name, how, time.perf_counter() - start))
        _log.info("%s", self.report[-1])
        return value

    def _make(self, artefact, data, data_hash, path, needs, asked: _Asked) -> str:
        import jax

        with locked(path, wait=True, stop=asked.stop):
            if _finished(path, artefact):
                return OTHERS
            path.mkdir(parents=True, exist_ok=True)
            for left in path.glob(".*.tmp"):  # by a killed process
                left.unlink(missing_ok=True)
            if asked.show_progress is not False:
                print(_beginning(path, artefact), file=sys.stderr)
            key = jax.random.fold_in(jax.random.key(artefact.seed), _consumer(artefact.kind))
            with own_dtypes():
                artefact.make(data, key, path, needs, show_progress=asked.show_progress)
            # That of fewer parts has stood until now: what it lists was whole all the time.
            manifest = {
                "identity": artefact.identity(data_hash), "versions": versions(),
                "data": data.spec.name,
                "files": {file.name: file.stat().st_size for file in _files(path)},
            }
            write_atomically(path / MANIFEST, lambda file: file.write(sealed(manifest)))
        return "made"

    def entries(self) -> list[Entry]:
        """All artefacts of the store, finished or not, by name; nothing else that lies there.

        Raises:
          CheckpointError: a file is where the folder should be.
        """
        if stands_at(self.folder, error=CheckpointError) not in ("nothing", "folder"):
            raise CheckpointError(f"{self.folder} is a file, expected a folder of artefacts",
                                  fix="name the folder")
        if not self.folder.is_dir():
            return []
        return [_entry(path) for path in sorted(self.folder.iterdir())
                if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]

    def find(self, name: str) -> tuple[pathlib.Path, Entry]:
        """The folder of the finished artefact of that name and what is known of it.

        Raises:
          CheckpointError: there is none, it is not finished, or it is damaged.
        """
        found = {entry.name: entry for entry in self.entries()}.get(name)
        if found is None or not found.finished:
            what = f"no artefact {name!r}" if found is None else f"{name}, which is not finished"
            raise CheckpointError(f"{self.folder} holds {what}",
                                  fix="list them by: python -m dd_jax artefacts")
        _check_files(self.folder / name)
        return self.folder / name, found

    def remove(self, name: str) -> None:
        """Deletes one artefact, so that it is made again when something asks for it.

        Raises:
          CheckpointError: there is none of that name, or it is being made.
        """
        if name not in {entry.name for entry in self.entries()}:
            raise CheckpointError(f"{self.folder} holds no artefact {name!r}",
                                  fix="list them by: python -m dd_jax artefacts")
        with locked(self.folder / name):
            # First: what a kill leaves of it shall not be taken for a damaged one.
            with contextlib.suppress(OSError):
                (self.folder / name / MANIFEST).unlink()
            shutil.rmtree(self.folder / name)

    def prune(self, kept: Callable[[Entry], bool] = lambda entry: entry.finished) -> list[Entry]:
        """Deletes the artefacts for which `kept` is false, unfinished ones by default.

        Returns:
          What was deleted. An artefact that is being made stays.
        """
        gone = []
        for entry in self.entries():
            if not kept(entry):
                try:
                    self.remove(entry.name)
                except CheckpointError:
                    continue
                gone.append(entry)
        return gone


def _beginning(path: pathlib.Path, artefact: Artefact) -> str:
    """What is going to be made, how many of it, and where."""
    missing = sum(not (path / part).exists() for part in artefact.parts)
    count = f", {missing} of {len(artefact.parts)} files," if artefact.parts else ""
    return f"making {path.name}{count} in {path.parent}"


def _consumer(kind: str) -> int:
    """A label for the keys of each kind, so that two kinds of one seed share no key."""
    return int.from_bytes(hashlib.sha256(kind.encode()).digest()[:4], "big") >> 1


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in path.iterdir()
                  if _own_file(file) and file.name != MANIFEST
                  and not file.name.startswith(".") and file.suffix not in (".lock", ".owner"))


def _own_file(path: pathlib.Path) -> bool:
    """Whether it is a file, and no link to one: a link may be changed where nobody looks."""
    try:
        return path.is_file() and not path.is_symlink()
    except OSError:  # a name that no file system can hold
        return False


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    """The manifest of a finished artefact.

    Raises:
      CheckpointError: it is damaged.
    """
    if not _own_file(path / MANIFEST):
        raise damaged(path, f"its {MANIFEST} is no file")
    try:
        manifest = read_json_file(path / MANIFEST, MANIFEST, fix="make it again")
        whole = isinstance(manifest.get("files"), dict) and all(
            map(_FILE.fullmatch, manifest["files"]))
    except (OSError, SetFileError) as error:
        raise damaged(path, f"its {MANIFEST} cannot be read ({error})") from error
    if not whole or manifest.get("sha256") != header_hash(manifest):
        raise damaged(path, f"its {MANIFEST} does not match its own hash")
    return manifest


def _finished(path: pathlib.Path, artefact: Artefact) -> bool:
    """Whether all that is asked for was made; what has gone since is damage, see `_check_files`."""
    kind = stands_at(path, error=CheckpointError)
    if path.is_symlink() or kind not in ("nothing", "folder"):
        raise CheckpointError(f"{path} is a link or a file, expected a folder of this store",
                              fix="delete it or move it away")
    if not (path / MANIFEST).exists() and not (path / MANIFEST).is_symlink():
        return False
    return set(artefact.parts) <= _read_manifest(path)["files"].keys()


def _check_files(path: pathlib.Path) -> None:
    """Refuses a folder whose files are not all there in their sizes; contents have own hashes."""
    for name, size in _read_manifest(path)["files"].items():
        file = path / name
        if not _own_file(file):
            found = "a link" if file.is_symlink() else "missing"
            raise damaged(path, f"its file {name} is {found}")
        if file.stat().st_size != size:
            raise damaged(path, f"its file {name} has {file.stat().st_size} bytes, expected {size}")


def _entry(path: pathlib.Path) -> Entry:
    size, finished, known = 0, (path / MANIFEST).exists(), {}
    for file in path.rglob("*"):
        try:
            size += file.lstat().st_size if _own_file(file) else 0
        except FileNotFoundError:  # it is being made, or removed
            continue
    if finished:
        with contextlib.suppress(CheckpointError):
            known = _read_manifest(path)
    made = known.get("identity")
    made = made if isinstance(made, dict) else {}
    settings, data = made.get("settings"), known.get("data") or str(made.get("data", ""))[:8]
    return Entry(path.name, size, finished, settings if isinstance(settings, dict) else {},
                 str(data), made.get("seed"))


def damaged(path: pathlib.Path, problem: str) -> CheckpointError:
    """The error of an artefact that is not as it was made."""
    return CheckpointError(
        f"the artefact {path} is damaged: {problem}",
        fix=f"make it again: python -m dd_jax artefacts --store {path.parent} --remove {path.name}")
