"""Named tensors and one JSON card as a safetensors file, both hashed.

Everything about a file is checked here before a tensor is built; what the tensors mean is checked
by who asks for them. safetensors' own reader does most of it: it maps the file, allocates nothing
by what a header says, and refuses shapes, offsets and lengths that do not fill the file exactly.
By hand is what it does not promise: that the path is a regular file within a cap, that its header
is short, what a foreign file is called, and the caps on tensors and their axes. A mapped file must
not be cut while it is open, so files are replaced by renaming and never written in place. The card
is ONE metadata entry of sorted JSON, because the order of several entries is not promised by the
writer and would change the bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from dd_jax.data.files import decoded_limit, held_bytes
from dd_jax.errors import SetFileError
from dd_jax.store.atomic import PathLike
from dd_jax.store.envelope import MAX_JSON_BYTES, canonical, header_hash, read_json

FORMAT = "dd_jax.set"
CARD_KEY = "dd_jax"
MAX_FILE_BYTES = 16 * 2**30
MAX_TENSORS = 64
MAX_RANK = 8
# NumPy's name of a dtype -> safetensors'
CODES = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16",
         "uint32": "U32", "int32": "I32", "uint64": "U64", "int64": "I64", "float16": "F16",
         "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
SET_DTYPES = ("float32", "int32", "uint8")

_AGAIN = "copy or download the file again, or write it again with dd_jax.store.save"

# First bytes of what people try to load instead. A zip may hold anything, so it is named last.
_FOREIGN = (
    (b"\x93NUMPY", "a NumPy .npy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x89PNG", "a PNG image"),
    (b"PK", "a zip archive (.npz, or .pt and .pth from PyTorch)"),
)


def content_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of tensors, in the order of their names.

    Args:
      tensors: name -> array of any shape, of a dtype in `CODES`.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = _little(tensors[name])
        digest.update(canonical([name, CODES[array.dtype.name], list(array.shape)]).encode())
        # As bytes, because bfloat16 has no buffer of its own.
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def pack(
    tensors: Mapping[str, np.ndarray], card: Mapping[str, Any], *, kind: str = FORMAT
) -> bytes:
    """Serialises tensors and a JSON-able card to the bytes of one file.

    Args:
      tensors: name -> array of a dtype in `CODES`.
      card: JSON-able; "format", "sha256" and "card_sha256" are added.
      kind: what the file is, its card's "format".

    Returns:
      The bytes; equal input gives equal bytes in every process.
    """
    import safetensors.numpy

    tensors = {name: _little(array) for name, array in tensors.items()}
    card = {**card, "format": kind, "sha256": content_hash(tensors)}
    card["card_sha256"] = header_hash(card, field="card_sha256")
    return safetensors.numpy.save(tensors, metadata={CARD_KEY: canonical(card)})


def unpack(
    path: PathLike,
    *,
    max_bytes: int = MAX_FILE_BYTES,
    kind: str = FORMAT,
    dtypes: Iterable[str] = SET_DTYPES,
    max_tensors: int = MAX_TENSORS,
    read: bool = True,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a file written from `pack`, checking it before anything is allocated or trusted.

    Args:
      path: the file.
      max_bytes: refuse longer files.
      kind: that its card has to name.
      dtypes: names in `CODES` that its tensors may have.
      max_tensors: refuse more.
      read: False leaves the tensors where they are, and gives none.

    Returns:
      (tensors: name -> array, card: dict), hashes not yet compared: the caller first
      looks at the version, because a newer format may hash otherwise.

    Raises:
      SetFileError: no such file, not safetensors, damaged, foreign, or over a size cap.
    """
    with open_tensors(path, max_bytes=max_bytes) as file:
        names = sorted(file.keys())
        card = read_card(file, kind)
        if len(names) > max_tensors:
            raise SetFileError(f"has {len(names)} tensors, the cap is {max_tensors}", fix=_AGAIN)
        for name in names:
            _check_entry(name, file.get_slice(name), tuple(dtypes))
        return {name: file.get_tensor(name) for name in names if read}, card


def check_card(card: Mapping[str, Any]) -> None:
    """Compares a card with its own hash.

    Raises:
      SetFileError: it differs.
    """
    _compare("card_sha256", card, header_hash(card, field="card_sha256"), "card")


def check_hashes(tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> None:
    """Compares the two stored hashes with the content.

    Raises:
      SetFileError: naming the hash that differs.
    """
    check_card(card)
    _compare("sha256", card, content_hash(tensors), "tensors")


@contextlib.contextmanager
def open_tensors(path: PathLike, *, max_bytes: int = MAX_FILE_BYTES) -> Iterator[Any]:
    """Opens a safetensors file whose header is short and true, and reads none of its tensors.

    Args:
      path: the file.
      max_bytes: refuse longer files.

    Yields:
      What `safetensors.safe_open` gives.

    Raises:
      SetFileError: no such file, not safetensors, damaged, foreign, or over a cap; also for an
        error of safetensors while the file is open.
    """
    import safetensors

    size = _check_start(pathlib.Path(path), max_bytes)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except OSError as error:
        raise _unreadable(error) from error
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        reason = str(error)[:200]
        if "not fully covered" in reason or "header length" in reason:
            raise SetFileError(f"is truncated or too long: its {size} bytes are not those that "
                               "its header describes", fix=_AGAIN) from error
        raise SetFileError(f"is not valid safetensors ({reason})", fix=_AGAIN) from error


def read_card(file: Any, kind: str) -> dict[str, Any]:
    """The card of an open file, its hash not yet compared.

    Raises:
      SetFileError: there is none, it is not JSON, or that of another kind of file.
    """
    text = (file.metadata() or {}).get(CARD_KEY)
    if text is None:
        raise SetFileError(
            f"is a safetensors file of {sorted(file.keys())[:5]} without a dd_jax card, so its "
            "labels and normalisation are unknown",
            fix="read it with safetensors.numpy.load_file, build a DistilledSet and save",
        )
    card = read_json(text, "the card", fix=_AGAIN)
    if card.get("format") != kind:
        raise SetFileError(
            f"card field 'format' is {str(card.get('format'))[:60]!r}, expected {kind!r}",
            fix=_AGAIN,
        )
    return card


def _little(array: Any) -> np.ndarray:
    """A contiguous array whose bytes are in the order of the file."""
    array = np.asarray(array)
    if array.dtype.name not in CODES:
        raise SetFileError(f"a tensor has dtype {array.dtype}, which a file cannot hold",
                           fix=f"cast it to one of {', '.join(CODES)}")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.asarray(array, order="C")


def _compare(field: str, card: Mapping[str, Any], found: str, what: str) -> None:
    if card.get(field) != found:
        raise SetFileError(
            f"{field} of the {what} is {found[:12]}..., the file says "
            f"{str(card.get(field))[:12]!r}...: the {what} changed since it was written",
            fix=_AGAIN,
        )


def _unreadable(error: OSError) -> SetFileError:
    return SetFileError(f"cannot be read ({error.strerror or str(error)[:200]})",
                        fix="check the permissions")


def _check_start(path: pathlib.Path, max_bytes: int) -> int:
    """Refuses what is no regular file, too long, foreign, or has a long header; gives its size."""
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "does not exist"
            if path.exists() and not path.is_dir():
                found = "is not a regular file"
            raise SetFileError(f"{found}, expected a distilled-set file", fix="check the path")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise SetFileError(
                    f"has {size} bytes, more than the cap of {max_bytes}",
                    fix="pass a larger max_bytes to load if you trust the file",
                )
            if size > decoded_limit(held_bytes(file, size)):
                raise SetFileError(f"has {size} bytes that are nearly all holes", fix=_AGAIN)
            start = file.read(16)
            file.seek(max(0, size - 1))
            end = file.read(1)
    except OSError as error:
        raise _unreadable(error) from error
    length = int.from_bytes(start[:8], "little")
    # This comes before the look at magic numbers: a header of 640 bytes makes an honest
    # file start with 80 02, the first bytes of a pickle.
    if len(start) > 8 and start[8:9] == b"{" and length <= MAX_JSON_BYTES:
        return size
    raise _diagnose(start, end, size)


def _diagnose(start: bytes, end: bytes, size: int) -> SetFileError:
    """Says what a file is that is not safetensors; looks at bytes and executes nothing."""
    binary_pickle = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    # Protocols 0 and 1 have no magic number: an opening opcode and the final STOP must do.
    text_pickle = start[:1] in (b"(", b"c", b"]", b"}", b"l", b"d") and end == b"."
    if binary_pickle or text_pickle:
        return SetFileError(
            "looks like a pickle; dd_jax never unpickles, because a pickle can run any program",
            fix="load it where you trust it, then build a DistilledSet and save that",
        )
    for magic, name in _FOREIGN:
        if start.startswith(magic):
            return SetFileError(
                f"looks like {name}, expected a dd_jax .safetensors file; nothing in it was opened",
                fix="read its arrays where you trust it, build a DistilledSet and save",
            )
    if start[8:9] == b"{":
        length = int.from_bytes(start[:8], "little")
        return SetFileError(
            f"declares a header of {length} bytes, the cap is {MAX_JSON_BYTES}", fix=_AGAIN
        )
    return SetFileError(
        f"is not a safetensors file (first bytes {start[:9]!r}, {size} bytes in all)",
        fix=_AGAIN,
    )


def _check_entry(name: str, entry: Any, dtypes: tuple[str, ...]) -> None:
    """Checks the dtype and the axes of one tensor of the table."""
    shape, dtype = entry.get_shape(), entry.get_dtype()
    if len(shape) > MAX_RANK:
        raise SetFileError(f"tensor {name[:60]!r} has {len(shape)} axes", fix=_AGAIN)
    if dtype not in [CODES[known] for known in dtypes]:
        raise SetFileError(
            f"tensor {name[:60]!r} has dtype {dtype!r}, expected {', '.join(dtypes)}",
            fix="cast it and write the file again",
        )
