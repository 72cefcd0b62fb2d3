"""Labels in few bytes: each codec is a frozen record of pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dd_jax.errors import SetFileError
from dd_jax.labels.codecs.codec import KINDS, Codec, bytes_of, coded, size_of, smallest
from dd_jax.labels.codecs.full import Full
from dd_jax.labels.codecs.low_rank import LowRank
from dd_jax.labels.codecs.quantised import Quantised
from dd_jax.labels.codecs.top import TopK

CODECS: Mapping[str, type[Codec]] = {
    "full": Full, "top": TopK, "quantised": Quantised, "low_rank": LowRank}
_NAMES = {codec: name for name, codec in CODECS.items()}


def codec_card(codec: Codec) -> dict[str, Any]:
    """What a file says of its codec, JSON-able.

    Example:
      >>> codec_card(TopK(10, kept=2))
      {'name': 'top', 'classes': 10, 'kept': 2, 'rest': 'uniform'}
    """
    return {"name": _NAMES[type(codec)], **dataclasses.asdict(codec)}


def codec_from_card(card: Any) -> Codec:
    """The codec that a file names.

    Raises:
      SetFileError: no codec of this release.
      ConfigError: one that cannot be.

    Example:
      >>> codec_from_card(codec_card(LowRank(10, rank=3)))
      LowRank(classes=10, rank=3)
    """
    fields = dict(card) if isinstance(card, Mapping) else {}
    kind = CODECS.get(str(fields.pop("name", None)))
    if kind is None or fields.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise SetFileError(f"its labels are coded by {str(card)[:80]}, which this release does not "
                           "know", fix=f"upgrade dd_jax; known are {', '.join(CODECS)}")
    return kind(**fields)


__all__ = ["CODECS", "KINDS", "Codec", "Full", "LowRank", "Quantised", "TopK", "bytes_of",
           "codec_card", "codec_from_card", "coded", "size_of", "smallest"]
