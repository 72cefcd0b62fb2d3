"""The distilled set as ONE `.safetensors` file that says how it was made and how to use it.

Raw images are not enough to use a distilled set: a network must see test images through the
same normaliser and must read the labels as what they are. Both travel in the file, with the
recipe, the versions, the citation and two hashes. No clock goes in: equal sets, equal bytes.

A set that was decoded from something smaller is stored as that, so that the file has the size that
is reported: version 2 holds the parameters, how to decode them, and no images. Sets of images are
still written in version 1, which every dd_jax reads.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dd_jax.data.normalise import Normaliser, from_tensors, to_tensors
from dd_jax.errors import DDJaxError, SetFileError
from dd_jax.store import checks, container
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.describe import summary
from dd_jax.store.record import DistilledSet, Stored, cost_bytes
from dd_jax.store.stored import check_stored, read_stored
from dd_jax.types import DataSpec, SyntheticSet

__all__ = ["DistilledSet", "Stored", "card_of", "cost_bytes", "load", "save", "summary",
           "validate"]

FORMAT_VERSION = 2
_OF_IMAGES = 1  # the version of a file that holds images: nothing of it has changed since

# version -> (card, tensors) of that version to (card, tensors) of the next. A new entry comes
# with a file of the old version in tests/golden, which must load for ever.
Migration = Callable[[dict, dict], "tuple[dict, dict]"]
_MIGRATIONS: dict[int, Migration] = {_OF_IMAGES: lambda card, tensors: (card, tensors)}

_NORMALISER = "normaliser/"
_STORED = "stored/"
_SCALARS = ("learning_rate", "log_temperature")  # what a set may have beside images and labels
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
    meta, stored = to_tensors(distilled.normaliser)[1], distilled.stored
    form = {} if stored is None else {"stored": {
        "kind": stored.kind,
        "arguments": checks.plain(dict(stored.arguments), "stored.arguments"),
    }}
    return {
        **form,
        "format_version": _OF_IMAGES if stored is None else FORMAT_VERSION,
        "label_kind": distilled.label_kind,
        "label_scale": float(distilled.label_scale),
        "spec": checks.plain(dataclasses.asdict(distilled.spec), "spec"),
        "recipe": checks.plain(dict(distilled.recipe), "recipe"),
        "evaluation": checks.plain(dict(distilled.evaluation), "evaluation"),
        "versions": checks.plain(dict(distilled.versions), "versions"),
        "normaliser": checks.plain(dict(meta), "normaliser"),
        "data_fingerprint": distilled.data_fingerprint,
        "bytes": cost_bytes(distilled.synthetic if stored is None else stored.params),
        "citation": distilled.citation,
    }


def validate(distilled: DistilledSet) -> None:
    """Checks a set as `save` and `load` do.

    Raises:
      SetFileError: naming the first field that is wrong.
    """
    checks.check_synthetic(
        distilled.synthetic, distilled.spec, label_kind=distilled.label_kind
    )
    checks.check_label_kind(
        distilled.label_kind, distilled.label_scale, np.asarray(distilled.synthetic.labels)
    )
    _check_normaliser(distilled.normaliser, distilled.spec)


def save(path: PathLike, distilled: DistilledSet) -> pathlib.Path:
    """Writes a distilled set as one safetensors file, whole or not at all.

    Args:
      path: the file, by habit with the ending ".safetensors"; replaced if it exists.
      distilled: the set.

    Returns:
      The path.

    Raises:
      SetFileError: the set is not valid, its stored form decodes to another one, or the file cannot
        be written.

    Example:
      >>> import pathlib, tempfile
      >>> from dd_jax.data.normalise import identity
      >>> images, labels = np.zeros((2, 4, 4, 1), np.float32), np.eye(2, dtype=np.float32)
      >>> made = DistilledSet(SyntheticSet(images, labels), identity((4, 4, 1)), "one_hot",
      ...                     DataSpec("toy", (4, 4, 1), 2, ("a", "b")), {"method": "none"})
      >>> path = save(pathlib.Path(tempfile.mkdtemp()) / "toy.safetensors", made)
      >>> load(path).recipe
      {'method': 'none'}
    """
    validate(distilled)
    if distilled.stored is not None:
        check_stored(distilled.stored, distilled.synthetic, distilled.spec)
        tensors = {_STORED + name: np.asarray(a) for name, a in distilled.stored.params.items()}
    else:
        tensors = {name: np.asarray(array) for name, array in distilled.synthetic._asdict().items()
                   if array is not None}
    for name, array in to_tensors(distilled.normaliser)[0].items():
        tensors[_NORMALISER + name] = np.asarray(array)
    blob = container.pack(tensors, card_of(distilled))
    return write_atomically(path, lambda file: file.write(blob))


def load(path: PathLike, *, max_bytes: int = container.MAX_FILE_BYTES) -> DistilledSet:
    """Reads a distilled set; never executes, and trusts nothing that it can check.

    Args:
      path: a file that `save` wrote, in this or an older version.
      max_bytes: refuse longer files before reading them, and stored forms that show more images or
        whose decoding needs more memory than this.

    Returns:
      The set, its arrays on the default device.

    Raises:
      SetFileError: the file is missing, damaged, foreign, newer than this library, or says
        something about itself that is not so.
    """
    try:
        tensors, card = container.unpack(path, max_bytes=max_bytes)
        _check_version(card)
        container.check_hashes(tensors, card)
        for version in range(card["format_version"], FORMAT_VERSION):
            card, tensors = _MIGRATIONS[version](card, tensors)
        return _assemble(tensors, card, max_bytes)
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
        fix="write the set again with dd_jax.store.save",
    )


def _assemble(
    tensors: dict[str, np.ndarray], card: dict[str, Any], max_bytes: int
) -> DistilledSet:
    """Builds the set of the current format version from checked bytes."""
    import jax.numpy as jnp

    for field, kind in _FIELDS.items():
        if not isinstance(card.get(field), kind) or isinstance(card.get(field), bool):
            raise SetFileError(
                f"card field {field!r} is {str(card.get(field))[:60]!r}, expected "
                f"{getattr(kind, '__name__', 'a number')}",
                fix="write the set again with dd_jax.store.save",
            )
    spec = checks.read_spec(card["spec"])
    own = {name: array for name, array in tensors.items() if not name.startswith(_NORMALISER)}
    stored = None
    if "stored" in card:
        synthetic, stored = read_stored(card["stored"], _params(own), spec, max_bytes=max_bytes)
    else:
        synthetic = _plain_set(own)
    checks.check_synthetic(synthetic, spec, label_kind=card["label_kind"])
    checks.check_label_kind(card["label_kind"], card["label_scale"], synthetic.labels)
    found = cost_bytes(synthetic if stored is None else stored.params)
    if card["bytes"] != found:
        raise SetFileError(
            f"card field 'bytes' is {card['bytes']}, the arrays take {found}",
            fix="write the set again with dd_jax.store.save",
        )
    normaliser = _normaliser(tensors, card["normaliser"])
    _check_normaliser(normaliser, spec)
    rest = {name: card[name] for name in ("recipe", "versions", "data_fingerprint", "citation")}
    return DistilledSet(
        synthetic=SyntheticSet(*(None if a is None else jnp.asarray(a) for a in synthetic)),
        normaliser=normaliser,
        label_kind=card["label_kind"],
        spec=spec,
        evaluation=card["evaluation"],
        label_scale=float(card["label_scale"]),
        stored=stored,
        **rest,
    )


def _plain_set(own: dict[str, np.ndarray]) -> SyntheticSet:
    """The set whose arrays are in the file."""
    known = {"images", "labels", *_SCALARS}
    if not {"images", "labels"} <= set(own) or not set(own) <= known:
        raise SetFileError(
            f"holds the tensors {sorted(own)}, expected images, labels and perhaps "
            + " and ".join(_SCALARS),
            fix="write the set again with dd_jax.store.save",
        )
    return SyntheticSet(**own)


def _params(own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters that the set is decoded from."""
    if not own or not all(name.startswith(_STORED) for name in own):
        raise SetFileError(
            f"holds the tensors {sorted(own)}, expected only names that begin with {_STORED!r}",
            fix="write the set again with dd_jax.store.save",
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
            fix="write the set again with dd_jax.store.save",
        ) from error


def _check_normaliser(normaliser: Normaliser, spec: DataSpec) -> None:
    """Checks shapes and values, so that a wrong one fails here and not inside a jitted step."""
    features = int(np.prod(spec.shape))
    expected = {
        "mean": (spec.shape[-1],),
        "std": (spec.shape[-1],),
        "pixel_mean": (features,),
        "whiten": (features, features),
        "unwhiten": (features, features),
    }
    for name, shape in expected.items():
        array = getattr(normaliser, name)
        if array is None and name not in ("mean", "std"):
            continue
        array = np.asarray(array)
        if array.shape != shape or not np.isfinite(array).all():
            raise SetFileError(
                f"normaliser.{name} has shape {array.shape}, expected {shape} of finite values "
                f"for images of shape {tuple(spec.shape)}",
                fix="save the set with the normaliser that was fitted to its data",
            )
    if np.asarray(normaliser.std).min() <= 0:
        raise SetFileError(
            f"normaliser.std has the value {np.asarray(normaliser.std).min()}, expected above 0",
            fix="save the set with the normaliser that was fitted to its data",
        )
