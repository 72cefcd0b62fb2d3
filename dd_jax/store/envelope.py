"""What every file of this library wraps its numbers in: a header of JSON that can be trusted.

Settings become plain values, plain values become one text, the text is hashed without its own
hash, and a foreign text is read only within bounds.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from dd_jax.data.files import open_regular
from dd_jax.errors import DDJaxError, SetFileError

MAX_JSON_BYTES = 16 * 2**20
MAX_DEPTH = 64
MAX_VALUES = 2**20  # an empty dictionary takes twenty times the bytes of its text
MAX_DIGITS = 40  # of a whole number; a 64-bit key has 20

_ABSENT = object()
_SHOWN = 80


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces, ASCII only.

    Raises:
      ValueError: a number that is not finite.

    Example:
      >>> canonical({"b": 1, "a": [0.5, None]})
      '{"a":[0.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def header_hash(header: Mapping[str, Any], *, field: str = "sha256") -> str:
    """SHA-256 of a header without the field that holds it, 64 hexadecimal digits.

    Example:
      >>> header_hash({"a": 1, "sha256": "old"}) == header_hash({"a": 1})
      True
    """
    rest = {name: value for name, value in header.items() if name != field}
    return hashlib.sha256(canonical(rest).encode()).hexdigest()


def sealed(header: Mapping[str, Any]) -> bytes:
    """A header with its own hash, as the bytes of a file that `read_json` reads.

    Example:
      >>> len(sealed({"a": 1}))
      83
    """
    return canonical({**header, "sha256": header_hash(header)}).encode()


def plain(value: Any, where: str, *, error: type[DDJaxError] = SetFileError) -> Any:
    """Turns settings into values that JSON can hold, or says which one cannot be.

    Tuples become lists and NumPy scalars become numbers, so what is read back compares equal to
    what was itself read.

    Args:
      value: mappings with text keys, lists, tuples, text, numbers, booleans and None.
      where: how to call the value in an error, for example "recipe".
      error: the type of the error.

    Raises:
      SetFileError: or `error`, naming the path of the offending value.

    Example:
      >>> plain({"betas": (0.9, 0.99)}, "recipe")
      {'betas': [0.9, 0.99]}
    """
    return _plain(value, where, error, 0)


def differences(a: Any, b: Any, *, prefix: str = "") -> list[tuple[str, str, str]]:
    """The settings in which two descriptions differ: [(dotted name, in a, in b), ...].

    True is not 1, and a number that is not finite equals itself.

    Example:
      >>> differences({"x": {"a": 1, "b": 2}}, {"x": {"a": 1}})
      [('x.b', '2', '(absent)')]
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        found = []
        for name in sorted({*a, *b}):
            found += differences(a.get(name, _ABSENT), b.get(name, _ABSENT),
                                 prefix=f"{prefix}.{name}" if prefix else name)
        return found
    return [] if _same(a, b) else [(prefix, _text(a), _text(b))]


def read_json(
    text: str | bytes,
    what: str,
    *,
    fix: str,
    error: type[DDJaxError] = SetFileError,
    max_bytes: int = MAX_JSON_BYTES,
) -> dict[str, Any]:
    """Parses one JSON object from anywhere, refusing what a lenient parser would let pass.

    Args:
      text: JSON; bytes have to be UTF-8.
      what: how to call it in an error, for example "the card".
      fix: of the error.
      error: its type.
      max_bytes: refuse longer texts.

    Returns:
      A dict of plain values, nested at most `MAX_DEPTH` deep, its numbers finite.

    Raises:
      SetFileError: or `error`: too long, not JSON, nested too deep, a name that occurs twice, more
        values than `MAX_VALUES`, or a number that is not finite or has too many digits.

    Example:
      >>> read_json('{"a": 1}', "the card", fix="write it again")
      {'a': 1}
    """
    if len(text) > max_bytes:
        raise error(f"{what} has {len(text)} bytes, the cap is {max_bytes}", fix=fix)
    try:
        # bytes go through str here, since json.loads would also guess UTF-16 and UTF-32
        text = text.decode() if isinstance(text, bytes) else text
        if sum(map(text.count, ",[{")) > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES} values")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant,
                           parse_int=_whole, parse_float=_finite)
        check_depth(value)
    except (ValueError, RecursionError) as problem:
        raise error(f"{what} is not valid JSON ({str(problem)[:200]})", fix=fix) from problem
    if not isinstance(value, dict):
        raise error(f"{what} is a {type(value).__name__}, expected an object", fix=fix)
    return value


def read_json_file(
    path: str | os.PathLike,
    what: str,
    *,
    fix: str,
    error: type[DDJaxError] = SetFileError,
    follow: bool = False,
) -> dict[str, Any]:
    """Reads a regular file that holds one JSON object, within the bounds of `read_json`.

    Args:
      path: the file.
      what, fix, error: as for `read_json`.
      follow: whether the file may be a link: for a path that the user gave, and no other.

    Raises:
      FileNotFoundError: it is not there.
      SetFileError: or `error`: as `read_json`, or it cannot be read.
    """
    try:
        with open_regular(path, follow=follow) as file:
            text = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{what} cannot be read ({reason})", fix=fix) from problem
    return read_json(text, what, fix=fix, error=error)


def check_depth(value: Any) -> None:
    """Raises ValueError for a parsed value that is nested more than `MAX_DEPTH` deep.

    Example:
      >>> check_depth({"a": [1]})
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        children: list[Any] = []
        for item in level:
            children += item.values() if isinstance(item, dict) else (
                item if isinstance(item, list) else ())
        if not children:
            return
        level = children
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _plain(value: Any, where: str, error: type[DDJaxError], depth: int) -> Any:
    if depth > MAX_DEPTH // 2:
        raise error(f"{where[:_SHOWN]}... is nested more than {depth - 1} deep", fix="nest it less")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise error(
                    f"{where} has the key {key!r} of type {type(key).__name__}, expected text",
                    fix="use text for keys",
                )
        return {key: _plain(v, f"{where}.{key}", error, depth + 1) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{where}[{i}]", error, depth + 1) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise error(f"{where} is {value}, which JSON cannot hold", fix="use None or text")
    if type(value) is int and abs(value) >= 10 ** (MAX_DIGITS - 1):
        raise error(f"{where} has {MAX_DIGITS} digits or more", fix="store it as text")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise error(
        f"{where} is a {type(value).__name__}, which JSON cannot hold",
        fix="store its name or its plain values",
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(float(digits)):
        raise ValueError(f"the number {digits[:20]} is too large")
    return float(digits)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _text(value: Any) -> str:
    text = "(absent)" if value is _ABSENT else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
