"""The distilled set as ONE `.safetensors` file that says how it was made and how to use it.

Raw images are not enough to use a distilled set: a network must see test images through the
same normaliser and must read the labels as what they are. Both travel in the file, with the
recipe, the versions, the citation and two hashes. No clock goes in: equal sets, equal bytes.

A file is written in the lowest version that can hold its set. Version 1 holds float32 images and
[M, K] labels. Version 2 holds what a set was decoded from, so that the file has the size that is
reported: the parameters, how to decode them, and no images. Version 3 may hold uint8 images, class
numbers, weights, and the name of a label store beside it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from dd_jax.data.files import decoded_limit
from dd_jax.data.normalise import Normaliser, from_tensors, to_tensors
from dd_jax.data.places import stands_at
from dd_jax.errors import DDJaxError, SetFileError, require_kind
from dd_jax.store import container, label_store
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.checks import read_spec, validate
from dd_jax.store.envelope import plain
from dd_jax.store.record import DistilledSet, array_bytes
from dd_jax.store.stored import check_stored, read_stored
from dd_jax.types import SyntheticSet

FORMAT_VERSION = 3

# version -> (card, tensors) of that version to (card, tensors) of the next. A new entry comes
# with a file of the old version in tests/golden, which must load for ever.
Migration = Callable[[dict, dict], "tuple[dict, dict]"]
_MIGRATIONS: dict[int, Migration] = {
    version: lambda card, tensors: (card, tensors) for version in (1, 2)
}

_AGAIN = "write the set again with dd_jax.store.save"
_NORMALISER = "normaliser/"
_STORED = "stored/"
_OPTIONAL = SyntheticSet._fields[2:]  # what a set may have beside images and labels
_FIELDS: dict[str, Any] = {
    "label_kind": str,
    "label_scale": (int, float),
    "spec": dict,
    "recipe": dict,
    "evaluation": dict,
    "versions": dict,
    "normaliser": dict,
    "data_fingerprint": str,
    "citation": str,
    "bytes": int,
}


def card_of(distilled: DistilledSet) -> dict[str, Any]:
    """The JSON-able description of a set: everything in its file that is not a tensor.

    Raises:
      SetFileError: a setting cannot be held in JSON.
    """
    stored, beside = distilled.stored, distilled.label_store
    card = {
        "format_version": _version(distilled),
        "label_kind": distilled.label_kind,
        "label_scale": float(distilled.label_scale),
        "spec": plain(dataclasses.asdict(distilled.spec), "spec"),
        "recipe": plain(distilled.recipe, "recipe"),
        "evaluation": plain(distilled.evaluation, "evaluation"),
        "versions": plain(distilled.versions, "versions"),
        "normaliser": plain(to_tensors(distilled.normaliser)[1], "normaliser"),
        "data_fingerprint": distilled.data_fingerprint,
        "bytes": array_bytes(_own_tensors(distilled).values()),
        "citation": distilled.citation,
    }
    if stored is not None:
        arguments = plain(stored.arguments, "stored.arguments")
        card["stored"] = {"kind": stored.kind, "arguments": arguments}
    if beside is not None:
        card["label_store"] = label_store.card_of_store(beside)
    return card


def save(path: PathLike, distilled: DistilledSet) -> pathlib.Path:
    """Writes a distilled set as one safetensors file, whole or not at all.

    Args:
      path: the file, by habit with the ending ".safetensors"; replaced if it exists.
      distilled: the set.

    Returns:
      The path.

    Raises:
      SetFileError: the set is not valid, its stored form decodes to another one, its label store is
        neither beside `path` nor where the set was loaded from, or the file cannot be written.

    Example:
      >>> import pathlib, tempfile
      >>> from dd_jax.data.normalise import identity
      >>> from dd_jax.types import DataSpec
      >>> images, labels = np.zeros((2, 4, 4, 1), np.float32), np.eye(2, dtype=np.float32)
      >>> made = DistilledSet(SyntheticSet(images, labels), identity((4, 4, 1)), "one_hot",
      ...                     DataSpec("toy", (4, 4, 1), 2, ("a", "b")), {"method": "none"})
      >>> path = save(pathlib.Path(tempfile.mkdtemp()) / "toy.safetensors", made)
      >>> load(path).recipe
      {'method': 'none'}
    """
    require_kind("the second argument of save", distilled, DistilledSet,
                 expected="a DistilledSet", fix="call save(path, set)")
    require_kind("path", path, (str, os.PathLike), expected="the file to write",
                 fix="call save(path, set)")
    validate(distilled)
    if distilled.stored is not None:
        check_stored(distilled.stored, distilled.synthetic, distilled.spec)
    tensors = _own_tensors(distilled)
    for name, array in to_tensors(distilled.normaliser)[0].items():
        tensors[_NORMALISER + name] = np.asarray(array)
    blob = container.pack(tensors, card_of(distilled))
    if distilled.label_store is not None:
        _place_label_store(distilled, pathlib.Path(path).parent)
    return write_atomically(path, lambda file: file.write(blob))


def load(path: PathLike, *, max_bytes: int | None = None) -> DistilledSet:
    """Reads a distilled set; never executes, and trusts nothing that it can check.

    Args:
      path: a file that `save` wrote, in this or an older version.
      max_bytes: refuse longer files before reading them, longer label stores, and sets that show
        more images or whose decoding needs more memory than this; by default files above 16 GiB,
        and sets that take many times the bytes of their file.

    Returns:
      The set, its arrays on the default device; its label store checked and left in its file.

    Raises:
      SetFileError: the file is missing, damaged, foreign, newer than this library, or says
        something about itself that is not so; or its label store is missing, damaged or another's.
    """
    stands_at(path, error=SetFileError)
    try:
        longest = container.MAX_FILE_BYTES if max_bytes is None else max_bytes
        tensors, card = container.unpack(path, max_bytes=longest)
        _check_version(card)
        container.check_hashes(tensors, card)
        for version in range(card["format_version"], FORMAT_VERSION):
            card, tensors = _MIGRATIONS[version](card, tensors)
        if max_bytes is None:
            max_bytes = decoded_limit(array_bytes(tensors.values()))
        distilled = _assemble(tensors, card, max_bytes)
        if distilled.label_store is not None:
            found = label_store.found_beside(distilled, pathlib.Path(path).parent,
                                             max_bytes=longest)
            distilled = dataclasses.replace(distilled, label_store=found)
        return distilled
    except SetFileError as error:
        raise SetFileError(f"{path}: {error.message}", fix=error.fix) from error


def _check_version(card: Mapping[str, Any]) -> None:
    version = card.get("format_version")
    if isinstance(version, int) and not isinstance(version, bool):
        if version > FORMAT_VERSION:
            raise SetFileError(
                f"has format version {version}, this dd_jax reads up to {FORMAT_VERSION}",
                fix="upgrade dd_jax",
            )
        if all(v in _MIGRATIONS for v in range(version, FORMAT_VERSION)) and version >= 0:
            return
    raise SetFileError(
        f"card field 'format_version' is {version!r}, expected a version from "
        f"{min([FORMAT_VERSION, *_MIGRATIONS])} to {FORMAT_VERSION}",
        fix=_AGAIN,
    )


def _version(distilled: DistilledSet) -> int:
    """The lowest version whose file can hold the set."""
    synthetic = distilled.synthetic
    freer = (distilled.label_store is not None or synthetic.weights is not None
             or distilled.label_kind == "classes" or synthetic.images.dtype == np.uint8)
    return 3 if freer else 1 if distilled.stored is None else 2


def _own_tensors(distilled: DistilledSet) -> dict[str, np.ndarray]:
    """What the set's file holds by name, but for the normaliser."""
    if distilled.stored is not None:
        return {_STORED + name: np.asarray(a) for name, a in distilled.stored.params.items()}
    return {name: np.asarray(array) for name, array in distilled.synthetic._asdict().items()
            if array is not None}


def _place_label_store(distilled: DistilledSet, folder: pathlib.Path) -> None:
    """Sees to it that the set's label store lies where its file will."""
    store = distilled.label_store
    if store.path is not None and not (folder / store.name).exists():
        label_store.copy_label_store(store, folder / store.name)
    label_store.found_beside(distilled, folder, max_bytes=store.bytes)


def _assemble(
    tensors: dict[str, np.ndarray], card: dict[str, Any], max_bytes: int
) -> DistilledSet:
    """Builds the set of the current format version from checked bytes."""
    for field, kind in _FIELDS.items():
        if not isinstance(card.get(field), kind) or isinstance(card.get(field), bool):
            raise SetFileError(
                f"card field {field!r} is {str(card.get(field))[:60]!r}, expected "
                f"{getattr(kind, '__name__', 'a number')}",
                fix=_AGAIN,
            )
    spec = read_spec(card["spec"])
    own = {name: array for name, array in tensors.items() if not name.startswith(_NORMALISER)}
    stored = None
    if "stored" in card:
        synthetic, stored = read_stored(card["stored"], _params(own), spec, max_bytes=max_bytes)
    else:
        synthetic = _plain_set(own)
    same = ("label_kind", "label_scale", "recipe", "evaluation", "versions", "data_fingerprint",
            "citation")
    beside = card.get("label_store")
    distilled = DistilledSet(
        synthetic, _normaliser(tensors, card["normaliser"]), spec=spec, stored=stored,
        label_store=None if beside is None else label_store.read_record(beside),
        **{name: card[name] for name in same},
    )
    _check_shown(distilled, max_bytes)
    validate(distilled)
    if _version(distilled) > card["format_version"]:
        raise SetFileError(f"says that it has format version {card['format_version']}, but holds "
                           f"what needs {_version(distilled)}", fix=_AGAIN)
    found = array_bytes(own.values())
    if card["bytes"] != found:
        raise SetFileError(f"card field 'bytes' is {card['bytes']}, the arrays take {found}",
                           fix=_AGAIN)
    return dataclasses.replace(
        distilled, label_scale=float(card["label_scale"]),
        synthetic=SyntheticSet(*(None if a is None else jnp.asarray(a) for a in synthetic)))


def _check_shown(distilled: DistilledSet, max_bytes: int) -> None:
    """Refuses class numbers and pixels that take more memory than this as a network sees them."""
    images, classes = distilled.synthetic.images, distilled.spec.num_classes
    rows = images.shape[0] if images.ndim else 0
    shown = 4 * (images.size + (rows * classes if distilled.label_kind == "classes" else 0))
    if shown > max(max_bytes, array_bytes(distilled.synthetic)):
        raise SetFileError(f"takes {shown} bytes as a network sees it, more than the cap of "
                           f"{max_bytes}", fix="pass a larger max_bytes if you trust the file")


def _plain_set(own: dict[str, np.ndarray]) -> SyntheticSet:
    """The set whose arrays are in the file."""
    known = {"images", "labels", *_OPTIONAL}
    if not {"images", "labels"} <= set(own) or not set(own) <= known:
        raise SetFileError(
            f"holds the tensors {sorted(own)}, expected images, labels and perhaps "
            + ", ".join(_OPTIONAL),
            fix=_AGAIN,
        )
    return SyntheticSet(**own)


def _params(own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters that the set is decoded from."""
    if not own or not all(name.startswith(_STORED) for name in own):
        raise SetFileError(
            f"holds the tensors {sorted(own)}, expected only names that begin with {_STORED!r}",
            fix=_AGAIN,
        )
    return {name[len(_STORED) :]: array for name, array in own.items()}


def _normaliser(tensors: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Normaliser:
    stored = {
        name[len(_NORMALISER) :]: array
        for name, array in tensors.items()
        if name.startswith(_NORMALISER)
    }
    try:
        return from_tensors(stored, {str(name): value for name, value in meta.items()})
    except (DDJaxError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = getattr(error, "message", None) or repr(error)
        raise SetFileError(
            f"its normaliser cannot be rebuilt from {sorted(stored)} and {dict(meta)}: {reason}",
            fix=_AGAIN,
        ) from error
