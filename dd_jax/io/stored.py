"""Sets stored as what they are decoded from: the parameters of a parameterization, and its name.

The decoder runs when a file is read, so of a foreign file everything is checked first: what it
names, how large its result would be, and then the shapes of the result, before it is computed. The
images come out to within rounding, since machines add in different orders.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import DDJaxError, SetFileError, nearest
from dd_jax.io import checks
from dd_jax.io.record import Stored
from dd_jax.synthetic import addressed, poster
from dd_jax.types import DataSpec, Parameterization, SyntheticSet

_AGAIN = "write the set again with dd_jax.io.save"
_NO_KEY = 0  # decoders of stored sets draw nothing


class StoredKind(NamedTuple):
    """A parameterization that a file can name.

    Attributes:
      make: (**arguments) -> Parameterization, refusing wrong ones.
      count: (arguments, K) -> how many images it shows.
    """

    make: Callable[..., Parameterization]
    count: Callable[[Mapping[str, Any], int], int]


STORED_KINDS: dict[str, StoredKind] = {
    "addressed": StoredKind(addressed, lambda a, classes: classes * a["rows"]),
    "poster": StoredKind(poster, lambda a, classes: math.prod(a["patches"])),
}


def decode_stored(stored: Stored, spec: DataSpec, *, max_bytes: int) -> SyntheticSet:
    """The synthetic set of a stored form.

    Args:
      stored: from anywhere.
      spec: of the data.
      max_bytes: that images and labels may take.

    Returns:
      Its arrays, NumPy float32.

    Raises:
      SetFileError: an unknown kind, arguments or parameters that do not fit it or each other, or a
        set of other images than those of `spec` or of too many.
    """
    kind = STORED_KINDS.get(stored.kind)
    if kind is None:
        raise SetFileError(f"is stored as {str(stored.kind)[:60]!r}, which is unknown",
                           fix=nearest(str(stored.kind), STORED_KINDS))
    params = {name: np.asarray(array) for name, array in stored.params.items()}
    for name, array in params.items():
        if array.dtype != np.float32:
            raise SetFileError(f"stored parameter {name!r} has dtype {array.dtype}, expected "
                               "float32", fix=f"cast {name} to float32")
    try:
        _check_numbers(stored.arguments, max([*(a.size for a in params.values()), *spec.shape]))
        count = operator.index(kind.count(stored.arguments, spec.num_classes))
        size = 4 * count * (math.prod(spec.shape) + spec.num_classes)
        if size > max_bytes:
            raise SetFileError(f"shows {count} images of {size} bytes, more than the cap of "
                               f"{max_bytes}", fix="pass a larger max_bytes if you trust the file")
        made = kind.make(**stored.arguments)
        made.groups(params)  # knows the names of its parameters
        shapes = jax.eval_shape(made.decode, params, jax.random.key(_NO_KEY))
        found = shapes.images.shape, shapes.labels.shape
        if found != ((count, *spec.shape), (count, spec.num_classes)):
            raise SetFileError(f"decodes to images {found[0]} and labels {found[1]}, expected "
                               f"{count} images of {tuple(spec.shape)}", fix=_AGAIN)
        decoded = made.decode(jax.tree.map(jnp.asarray, params), jax.random.key(_NO_KEY))
    except SetFileError:
        raise
    except (DDJaxError, LookupError, TypeError, ValueError, ArithmeticError,
            RecursionError) as error:
        reason = getattr(error, "message", None) or repr(error)
        raise SetFileError(
            f"cannot be decoded as {stored.kind!r} from {sorted(params)}: {reason[:300]}",
            fix=_AGAIN) from error
    return jax.tree.map(np.asarray, decoded)


def read_stored(
    value: Any, params: Mapping[str, np.ndarray], spec: DataSpec, *, max_bytes: int
) -> tuple[SyntheticSet, Stored]:
    """Decodes what a file holds.

    Args:
      value: the card's "stored": {"kind", "arguments"}.
      params: name -> array.
      spec, max_bytes: as for `decode_stored`.

    Returns:
      The set and its stored form.

    Raises:
      SetFileError: as `decode_stored`, or `value` is something else.
    """
    value = value if isinstance(value, dict) else {}
    kind, arguments = value.get("kind"), value.get("arguments")
    if not isinstance(kind, str) or not isinstance(arguments, dict):
        raise SetFileError("card field 'stored' has no kind and arguments", fix=_AGAIN)
    stored = Stored(kind, arguments, params)
    return decode_stored(stored, spec, max_bytes=max_bytes), stored


def check_stored(stored: Stored, synthetic: SyntheticSet, spec: DataSpec) -> None:
    """Checks that a stored form is that of a set, so that its file will give the set back.

    Raises:
      SetFileError: it cannot be decoded, or gives another set.
    """
    arguments = checks.plain(dict(stored.arguments), "stored.arguments")  # as the file will say
    shown = SyntheticSet(*synthetic)
    size = sum(np.asarray(array).nbytes for array in shown if array is not None)
    found = decode_stored(Stored(stored.kind, arguments, stored.params), spec, max_bytes=size)
    for name, ours, theirs in zip(SyntheticSet._fields, shown, found):
        if (ours is None) != (theirs is None) or (
                ours is not None and not _close(np.asarray(ours), np.asarray(theirs))):
            raise SetFileError(f"its stored form decodes to other {name}",
                               fix="store the parameters of these images, or pass stored=None")


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def _check_numbers(value: Any, most: int) -> None:
    """Refuses numbers beyond the sizes of the arrays, which could ask for any amount of memory."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_numbers(item, most)
    elif not isinstance(value, (str, bool, type(None))) and not (
            isinstance(value, int) and 0 <= value <= most):
        raise SetFileError(f"its stored form has the argument {str(value)[:40]}, expected a whole "
                           f"number up to {most}", fix=_AGAIN)
