"""Sets stored as what they are decoded from: the parameters of a parameterization, and its name.

The decoder runs when a file is read, so of a foreign file everything is checked first: what it
names, how much memory its result and the way there would take, that its parameters are those that
its arguments make, and then the shapes of the result, before it is computed. The images come out to
within rounding, since machines add in different orders.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import DDJaxError, SetFileError, nearest, require_whole
from dd_jax.store import container
from dd_jax.store.envelope import plain
from dd_jax.store.record import Stored, array_bytes
from dd_jax.synthetic import addressed, poster, poster_layout
from dd_jax.synthetic.class_order import check_grid, two_sizes
from dd_jax.types import DataSpec, Parameterization, SyntheticSet

_AGAIN = "write the set again with dd_jax.store.save"
_NO_KEY = 0  # decoders of stored sets draw nothing


class Sizes(NamedTuple):
    """What a stored form would ask of a machine.

    Attributes:
      images: that it shows.
      working_bytes: of what is made on the way to images and labels.
    """

    images: int
    working_bytes: int


class StoredKind(NamedTuple):
    """A parameterization that a file can name.

    Attributes:
      make: (**arguments) -> Parameterization, refusing wrong ones.
      sizes: (all arguments of `make`, spec) -> Sizes, refusing arguments of other data; it is asked
        before `make` and allocates nothing.
    """

    make: Callable[..., Parameterization]
    sizes: Callable[[Mapping[str, Any], DataSpec], Sizes]


def _addressed_sizes(arguments: Mapping[str, Any], spec: DataSpec) -> Sizes:
    for name in ("bases", "rows", "downsample"):
        require_whole(name, arguments[name])
    bases = arguments["bases"] * (spec.num_classes if arguments["per_class"] else 1)
    # All bases at full size, and the matrix that enlarges each side.
    sides = sum(side * side for side in spec.shape[:2]) // arguments["downsample"]
    return Sizes(spec.num_classes * arguments["rows"], 4 * (bases * math.prod(spec.shape) + sides))


def _poster_sizes(arguments: Mapping[str, Any], spec: DataSpec) -> Sizes:
    shape, image = poster_layout.check_sizes(arguments["shape"], arguments["image_shape"])
    grid, patches = check_grid(arguments["class_grid"]), two_sizes(
        "patches", arguments["patches"], example=(6, 16))
    require_whole("label_ipc", arguments["label_ipc"])
    classes, shown = math.prod(grid), math.prod(patches)
    if image != tuple(spec.shape) or classes != spec.num_classes:
        raise SetFileError(f"is a poster of images {image} and {classes} classes, its data has "
                           f"{tuple(spec.shape)} and {spec.num_classes}", fix=_AGAIN)
    fades = 8 * sum(count * side for count, side in zip(grid, shape))
    if arguments["labels"] == "learned":  # the map, and what each patch sees of it
        cells = poster_layout.label_map_shape(shape, classes * arguments["label_ipc"])
        window = poster_layout.label_window(shape, image, cells)
        labels = 4 * classes * (math.prod(cells) + shown * math.prod(window))
    else:  # four times as float64, while they are counted and normalised
        labels = 4 * 8 * classes * shown
    return Sizes(shown, fades + labels)


STORED_KINDS: dict[str, StoredKind] = {
    "addressed": StoredKind(addressed, _addressed_sizes),
    "poster": StoredKind(poster, _poster_sizes),
}


def decode_stored(stored: Stored, spec: DataSpec, *, max_bytes: int) -> SyntheticSet:
    """The synthetic set of a stored form.

    Args:
      stored: from anywhere.
      spec: of the data.
      max_bytes: that images and labels may take, and what is made on the way to them.

    Returns:
      Its arrays, NumPy float32.

    Raises:
      SetFileError: an unknown kind, arguments or parameters that do not fit it, each other or
        `spec`, or that ask for too much memory.
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
        _check_numbers(stored.arguments, max([
            *(a.size for a in params.values()), *spec.shape, spec.num_classes]))
        count = _checked_count(kind, stored.arguments, spec, max_bytes)
        made = kind.make(**stored.arguments)
        _check_params(made, params, spec)
        shapes = jax.eval_shape(made.decode, params, jax.random.key(_NO_KEY))
        found = shapes.images.shape, shapes.labels.shape
        if found != ((count, *spec.shape), (count, spec.num_classes)):
            raise SetFileError(f"decodes to images {found[0]} and labels {found[1]}, expected "
                               f"{count} images of {tuple(spec.shape)}", fix=_AGAIN)
        decoded = made.decode(jax.tree.map(jnp.asarray, params), jax.random.key(_NO_KEY))
        return jax.tree.map(np.asarray, decoded)  # here, since it may only now run out of memory
    except SetFileError:
        raise
    except (DDJaxError, LookupError, TypeError, ValueError, ArithmeticError, MemoryError,
            RuntimeError) as error:  # XLA's own, and too deep recursion, are the last
        reason = getattr(error, "message", None) or repr(error)
        raise SetFileError(
            f"cannot be decoded as {stored.kind!r} from {sorted(params)}: {reason[:300]}",
            fix=_AGAIN) from error


def _checked_count(
    kind: StoredKind, arguments: Mapping[str, Any], spec: DataSpec, max_bytes: int
) -> int:
    """How many images a stored form shows, if it asks for no more than `max_bytes`."""
    whole = inspect.signature(kind.make).bind(**arguments)
    whole.apply_defaults()
    count, working = kind.sizes(whole.arguments, spec)
    shown = 4 * count * (math.prod(spec.shape) + spec.num_classes)
    for size, what in ((shown, f"shows {count} images of {shown} bytes"),
                       (working, f"takes {working} bytes to decode")):
        if size > max_bytes:
            raise SetFileError(f"{what}, more than the cap of {max_bytes}",
                               fix="pass a larger max_bytes if you trust the file")
    return count


def _check_params(made: Parameterization, params: Mapping[str, np.ndarray], spec: DataSpec) -> None:
    """Refuses parameters of other names or shapes than a start of this data would have."""

    def like(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.float32)

    scalars = (like(*params[name].shape) if name in params else None
               for name in ("log_learning_rate", "log_temperature"))
    classes = spec.num_classes
    start = SyntheticSet(like(classes, *spec.shape), like(classes, classes), *scalars)
    wanted = jax.eval_shape(made.init, jax.random.key(_NO_KEY), start)
    found, wanted = ({name: tuple(a.shape) for name, a in sorted(tree.items())}
                     for tree in (params, wanted))
    if found != wanted:
        raise SetFileError(f"has the stored parameters {str(found)[:300]}, its arguments make "
                           f"{wanted}", fix=_AGAIN)


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
    arguments = plain(dict(stored.arguments), "stored.arguments")  # as the file will say
    shown = SyntheticSet(*synthetic)
    # What `load` allows, or a larger set that there is room for already.
    most = max(container.MAX_FILE_BYTES, array_bytes(shown))
    found = decode_stored(Stored(stored.kind, arguments, stored.params), spec, max_bytes=most)
    for name, ours, theirs in zip(SyntheticSet._fields, shown, found):
        if (ours is None) != (theirs is None) or (
                ours is not None and not _close(np.asarray(ours), np.asarray(theirs))):
            raise SetFileError(f"its stored form decodes to other {name}",
                               fix="store the parameters of these images, or pass stored=None")


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def _check_numbers(value: Any, most: int) -> None:
    """Refuses what no argument can be: a number larger than the largest array, side or class count.

    It bounds each number alone. Their products, which are what takes memory, `Sizes` bounds.
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_numbers(item, most)
    elif not isinstance(value, (str, bool, type(None))) and not (
            isinstance(value, int) and 0 <= value <= most):
        raise SetFileError(f"its stored form has the argument {str(value)[:40]}, expected a whole "
                           f"number up to {most}", fix=_AGAIN)
