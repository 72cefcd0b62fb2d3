"""What a piece hands to the next one: a run's folder as one archive, in parts that may travel.

Machines that are lent for minutes keep nothing and take and give back little: 64 MiB in all and
16 MiB a file are the limits kept here.
"""

from __future__ import annotations

import io
import pathlib
import tarfile
from collections.abc import Iterable

from dd_jax.errors import DataError
from dd_jax.store.atomic import write_atomically

PART_BYTES = 15 * 2**20
CARRY_BYTES = 24 * 2**20  # beside 30 MiB of data and 9 MiB of source


def part_names(name: str, folder: pathlib.Path) -> list[pathlib.Path]:
    """The parts of an archive that lie in a folder, in order."""
    return sorted(folder.glob(f"{name}.carry.*"))


def chosen(
    folder: pathlib.Path, *, most: int = CARRY_BYTES
) -> tuple[list[pathlib.Path], list[str]]:
    """The files of a run's folder that are carried, and the names of those too large for it.

    The run's own files come first, then its artefacts, the small ones first: what is left out is
    made again by the next piece. An artefact is carried whole or not at all.
    """
    own = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    stored = folder / "artefacts"
    groups = [[path] for path in sorted(own)]
    if stored.is_dir():
        made = [sorted(p for p in path.rglob("*") if p.is_file())
                for path in stored.iterdir() if path.is_dir()]
        groups += sorted((group for group in made if group), key=size)
    kept, left, total = [], [], 0
    for group in groups:
        if total + size(group) > most:
            left.append(str(group[0].relative_to(folder)))
            continue
        kept += group
        total += size(group)
    return kept, left


def size(paths: Iterable[pathlib.Path]) -> int:
    """Bytes of files."""
    return sum(path.stat().st_size for path in paths)


def pack(folder: pathlib.Path, out: pathlib.Path, *, part: int = PART_BYTES) -> dict:
    """Writes a run's folder into parts in `out`; older parts of it there are replaced.

    Returns:
      JSON-able: names of the parts, their bytes, and what was left out.
    """
    kept, left = chosen(folder)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in kept:
            archive.add(path, arcname=str(path.relative_to(folder)), recursive=False)
    blob = packed.getvalue()
    pieces = [blob[at:at + part] for at in range(0, len(blob), part)]
    for index, piece in enumerate(pieces):
        write_atomically(out / f"{folder.name}.carry.{index:02}",
                         lambda file, piece=piece: file.write(piece))
    names = [f"{folder.name}.carry.{index:02}" for index in range(len(pieces))]
    for path in part_names(folder.name, out):
        if path.name not in names:
            path.unlink()
    return {"files": names, "bytes": len(blob), "left_out": left}


def unpack(name: str, parts: pathlib.Path, folder: pathlib.Path) -> bool:
    """Fills a run's folder from the parts in another; False where there are none.

    Raises:
      DataError: they are no whole archive.
    """
    found = part_names(name, parts)
    if not found:
        return False
    blob = b"".join(path.read_bytes() for path in found)
    try:
        with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
            folder.mkdir(parents=True, exist_ok=True)
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{parts}/{name}.carry.* are no whole archive: {error}",
                        fix="carry all parts that the last piece left") from error
    return True
