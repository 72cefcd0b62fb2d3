"""The outer shell of a distilled-set file: safetensors plus one JSON card, both hashed.

Everything about the file is checked here before a tensor is built; what the tensors mean is
checked in `dd_jax.store.checks`. The card is ONE metadata entry holding sorted JSON, because the
order of several entries is not promised by the safetensors writer and would change the bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dd_jax.errors import SetFileError
from dd_jax.store.atomic import PathLike

FORMAT = "dd_jax.set"
CARD_KEY = "dd_jax"
MAX_FILE_BYTES = 16 * 2**30
MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 64
MAX_RANK = 8

_AGAIN = "copy or download the file again, or write it again with dd_jax.store.save"

# First bytes of what people try to load instead. A zip may hold anything, so it is named last.
_FOREIGN = (
    (b"\x93NUMPY", "a NumPy .npy array"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x89PNG", "a PNG image"),
    (b"PK", "a zip archive (.npz, or .pt and .pth from PyTorch)"),
)


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces, ASCII only.

    Example:
      >>> canonical({"b": 1, "a": [0.5, None]})
      '{"a":[0.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the names, shapes and bytes of tensors, in the order of their names.

    Args:
      tensors: name -> float32 array of any shape.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.asarray(tensors[name], dtype="<f4", order="C")
        digest.update(canonical([name, "F32", list(array.shape)]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def card_hash(card: Mapping[str, Any]) -> str:
    """SHA-256 of the card without its own hash."""
    rest = {name: value for name, value in card.items() if name != "card_sha256"}
    return hashlib.sha256(canonical(rest).encode()).hexdigest()


def pack(tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> bytes:
    """Serialises float32 tensors and a JSON-able card to the bytes of one file.

    Args:
      tensors: name -> float32 array.
      card: JSON-able; "format", "sha256" and "card_sha256" are added.

    Returns:
      The bytes; equal input gives equal bytes in every process.
    """
    import safetensors.numpy

    tensors = {name: np.array(array, dtype="<f4", order="C") for name, array in tensors.items()}
    card = {**card, "format": FORMAT, "sha256": content_hash(tensors)}
    card["card_sha256"] = card_hash(card)
    return safetensors.numpy.save(tensors, metadata={CARD_KEY: canonical(card)})


def unpack(
    path: PathLike, *, max_bytes: int = MAX_FILE_BYTES
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a file written from `pack`, checking it before anything is allocated or trusted.

    Args:
      path: the file.
      max_bytes: refuse longer files.

    Returns:
      (tensors: name -> float32 array, card: dict), hashes not yet compared: the caller first
      looks at the version, because a newer format may hash otherwise.

    Raises:
      SetFileError: no such file, not safetensors, damaged, foreign, or over a size cap.
    """
    import safetensors
    import safetensors.numpy

    blob = _read(path, max_bytes)
    header = _header(blob)
    metadata = header.pop("__metadata__", None)
    text = metadata.get(CARD_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise SetFileError(
            f"is a safetensors file of {sorted(header)[:5]} without a dd_jax card, so its labels "
            "and normalisation are unknown",
            fix="read it with safetensors.numpy.load_file, build a DistilledSet and save",
        )
    card = _json(text, "the card")
    if card.get("format") != FORMAT:
        raise SetFileError(
            f"card field 'format' is {card.get('format')!r}, expected {FORMAT!r}", fix=_AGAIN
        )
    _check_table(header, blob)
    try:
        tensors = safetensors.numpy.load(blob)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise SetFileError(f"is not valid safetensors ({error})", fix=_AGAIN) from error
    return tensors, card


def check_hashes(tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> None:
    """Compares the two stored hashes with the content.

    Raises:
      SetFileError: naming the hash that differs.
    """
    for field, found in (("card_sha256", card_hash(card)), ("sha256", content_hash(tensors))):
        if card.get(field) != found:
            what = "card" if field == "card_sha256" else "tensors"
            raise SetFileError(
                f"{field} of the {what} is {found[:12]}..., the file says "
                f"{str(card.get(field))[:12]!r}...: the {what} changed since it was written",
                fix=_AGAIN,
            )


def _read(path: PathLike, max_bytes: int) -> bytes:
    path = pathlib.Path(path)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        if path.exists() and not path.is_dir():
            found = "is not a regular file"
        raise SetFileError(f"{found}, expected a distilled-set file", fix="check the path")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise SetFileError(
                    f"has {size} bytes, more than the cap of {max_bytes}",
                    fix="pass a larger max_bytes to load if you trust the file",
                )
            return file.read(size)
    except OSError as error:
        raise SetFileError(
            f"cannot be read ({error.strerror})", fix="check the permissions"
        ) from error


def _header(blob: bytes) -> dict[str, Any]:
    """The JSON header of safetensors: eight bytes of length, then an object."""
    length = int.from_bytes(blob[:8], "little")
    if len(blob) > 8 and blob[8:9] == b"{" and length <= MAX_HEADER_BYTES:
        # This comes before the look at magic numbers: a header of 640 bytes makes an honest
        # file start with 80 02, the first bytes of a pickle.
        if length > len(blob) - 8:
            raise SetFileError(
                f"is truncated: the header needs {length} bytes, {len(blob) - 8} are there",
                fix=_AGAIN,
            )
        return _json(blob[8 : 8 + length], "the header")
    raise _diagnose(blob, length)


def _diagnose(blob: bytes, length: int) -> SetFileError:
    """Says what a file is that is not safetensors; looks at bytes and executes nothing."""
    binary_pickle = blob[:1] == b"\x80" and blob[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    # Protocols 0 and 1 have no magic number: an opening opcode and the final STOP must do.
    text_pickle = blob[:1] in (b"(", b"c", b"]", b"}", b"l", b"d") and blob[-1:] == b"."
    if binary_pickle or text_pickle:
        return SetFileError(
            "looks like a pickle; dd_jax never unpickles, because a pickle can run any program",
            fix="load it where you trust it, then build a DistilledSet and save that",
        )
    for magic, name in _FOREIGN:
        if blob.startswith(magic):
            return SetFileError(
                f"looks like {name}, expected a dd_jax .safetensors file; nothing in it was opened",
                fix="read its arrays where you trust it, build a DistilledSet and save",
            )
    if blob[8:9] == b"{":
        return SetFileError(
            f"declares a header of {length} bytes, the cap is {MAX_HEADER_BYTES}", fix=_AGAIN
        )
    return SetFileError(
        f"is not a safetensors file (first bytes {blob[:9]!r}, {len(blob)} bytes in all)",
        fix=_AGAIN,
    )


def _json(text: Any, what: str) -> dict[str, Any]:
    """Parses one JSON object, refusing what a lenient parser would let pass."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        # bytes go through str here, since json.loads would also guess UTF-16 and UTF-32
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise SetFileError(f"{what} is not valid JSON ({error})", fix=_AGAIN) from error
    if not isinstance(value, dict):
        raise SetFileError(f"{what} is a {type(value).__name__}, expected an object", fix=_AGAIN)
    return value


def _check_table(header: Mapping[str, Any], blob: bytes) -> None:
    """Checks names, dtypes and shapes of the tensor table against the bytes that are there."""
    if len(header) > MAX_TENSORS:
        raise SetFileError(f"has {len(header)} tensors, the cap is {MAX_TENSORS}", fix=_AGAIN)
    needed = 0
    for name, entry in header.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(
            isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape
        ):
            raise SetFileError(f"tensor {name!r} has no valid shape ({shape!r})", fix=_AGAIN)
        if len(shape) > MAX_RANK:
            raise SetFileError(f"tensor {name!r} has {len(shape)} axes", fix=_AGAIN)
        if entry.get("dtype") != "F32":
            raise SetFileError(
                f"tensor {name!r} has dtype {entry.get('dtype')!r}, expected 'F32' (float32)",
                fix="cast it to float32 and write the set again with dd_jax.store.save",
            )
        needed += 4 * math.prod(shape)
    found = len(blob) - 8 - int.from_bytes(blob[:8], "little")
    if needed != found:
        state = "is truncated" if found < needed else "is too long"
        raise SetFileError(
            f"{state}: its tensors need {needed} bytes, {found} are there", fix=_AGAIN
        )
