"""How files are spoilt: bytes, JSON and arrays, at random and again the same from a seed."""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dd_jax.store.envelope import header_hash

# What JSON may hold where nobody expects it; some of it is no JSON.
RAW = (
    "null", "true", "false", "0", "-1", "1", "2", "1.5", "-0.0", "1e-45", "1e38", "1e308", "1e999",
    "-1e999", "NaN", "Infinity", "4294967296", "18446744073709551616", "9" * 39, "9" * 400, '""',
    '"x"', '"\\u001b[31m\\nOK"', '"\\ud800"', json.dumps("x" * 5000), '"../../etc/passwd"', "[]",
    "{}", "[[]]", "[1,2,3]", "[0.5]", '{"a":1}', "[" * 100 + "]" * 100, "[" * 3000 + "]" * 3000,
    '{"a":' * 40 + "1" + "}" * 40,
)
_MARK = "\ue000"
_VALUES = (np.nan, np.inf, -np.inf, 1e-45, 3e38, -3e38, 0.0, 1.0, -1.0, 255.0)
_DTYPES = ("uint8", "int32", "float32", "float64", "float16", "bool", "int64")


def spoilt_bytes(rng: random.Random, raw: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to four changes: flipped, written over, cut, repeated, put in, or those of another."""
    found = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        length = min(rng.choice((1, 1, 2, 4, 8, 64, 1000)), max(1, len(found) - at))
        how = rng.randrange(7)
        if how == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            found[at : at + length] = bytes([rng.choice((0, 1, 127, 128, 255))]) * length
        elif how == 2:
            found[at : at + length] = rng.randbytes(length)
        elif how == 3:
            del found[at : at + length]
        elif how == 4:
            found[at:at] = found[at : at + length]
        elif how == 5:
            del found[at:]
        elif others:
            other = rng.choice(others)
            place = rng.randrange(len(other) + 1)
            found[at : at + length] = other[place : place + length]
    return bytes(found)


def spoilt_json(rng: random.Random, value: Any) -> str:
    """The text of a JSON value with up to three of its parts replaced, taken away or doubled."""
    value, raws = json.loads(json.dumps(value)), []
    for _ in range(rng.randint(1, 3)):
        holder, key = rng.choice(_places(value) or [(None, None)])
        if holder is None:
            return rng.choice(RAW)
        how = rng.randrange(8)
        if how == 0 and isinstance(holder, dict):
            del holder[key]
        elif how == 1 and isinstance(holder, dict):
            holder[rng.choice(("", "x", "\x1b", key.upper(), "x" * 300))] = holder[key]
        elif how == 2 and isinstance(holder[key], (int, float)):
            holder[key] = holder[key] * rng.choice((-1, 2, 0.5, 10**6)) + rng.choice((0, 1))
        else:
            raws.append(rng.choice(RAW))
            holder[key] = f"{_MARK}{len(raws) - 1}{_MARK}"
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    mark = json.dumps(_MARK)[1:-1]
    return re.sub(rf'"{re.escape(mark)}(\d+){re.escape(mark)}"', lambda m: raws[int(m[1])], text)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every part of a JSON value."""
    found, left = [], [value]
    while left:
        holder = left.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                left.append(holder[key])
    return found


def sealed_text(
    text: str, field: str, seal: Callable[[Any], str] | None = None
) -> str:
    """The text of an object with its own hash, where it has one: a liar can compute it, too."""
    try:
        value = json.loads(text)
        digest = header_hash(value, field=field) if seal is None else seal(value)
    except (ValueError, RecursionError, TypeError, AttributeError, OverflowError):
        digest = "0" * 64
    if not text.endswith("}"):
        return text
    return f'{text[:-1]}{"," if len(text) > 2 else ""}"{field}":"{digest}"}}'


def spoilt_tensors(
    rng: random.Random, tensors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """One or two of the arrays of other values, shapes, dtypes or names, or gone, or doubled."""
    found = dict(tensors)
    for _ in range(rng.randint(1, 2)):
        if not found:
            break
        name = rng.choice(sorted(found))
        array = np.array(found[name])
        how = rng.randrange(7)
        if how == 0:
            del found[name]
        elif how == 1:
            found[rng.choice(("x", "normaliser/x", "stored/x", "weights", "\x1b", ""))] = array
        elif how == 2 and array.size and array.dtype.kind == "f":
            array.reshape(-1)[rng.randrange(array.size)] = rng.choice(_VALUES)
            found[name] = array
        elif how == 3 and array.dtype.kind == "f":
            found[name] = np.full_like(array, rng.choice(_VALUES))
        elif how == 4:
            with np.errstate(all="ignore"):
                found[name] = array.astype(rng.choice(_DTYPES))
        elif how == 5 and array.ndim:
            found[name] = array[: rng.randrange(len(array) + 1)]
        else:
            found[name] = array.reshape(rng.choice(((-1,), (1, -1), (*array.shape, 1))))
    return {name: np.asarray(array, order="C") for name, array in found.items()}


def odd_file(rng: random.Random, path: pathlib.Path) -> None:
    """Puts something in the place of a file that is no file, or is nearly all holes."""
    if path.is_dir() and not path.is_symlink():
        return
    path.unlink(missing_ok=True)
    how = rng.randrange(6)
    if how == 0:
        os.mkfifo(path)
    elif how == 1:
        path.mkdir()
    elif how == 2:
        path.symlink_to(path)
    elif how == 3:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/stdin", "/etc")))
    elif how == 4:
        path.write_bytes(b"")
        os.truncate(path, rng.choice((70, 1000, 8000)) * 2**20)
