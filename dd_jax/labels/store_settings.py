"""What a store of views and their labels is: settings, their names, and bytes told beforehand."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from dd_jax.errors import ConfigError, require_above_zero, unknown
from dd_jax.labels.codecs import CODECS, Codec
from dd_jax.labels.codecs.codec import Shapes, size_of
from dd_jax.labels.committee import AVERAGES
from dd_jax.labels.draws import ViewRule, draw_shapes
from dd_jax.labels.live import MODES


class StorePlan(NamedTuple):
    """A store before it is written.

    Attributes:
      rule: which views.
      codec: of their labels.
    """

    rule: ViewRule
    codec: Codec

    @property
    def shapes(self) -> Shapes:
        """Name -> shape and dtype of every tensor of the file.

        [P, B, ...] of labels, [P, ...] of draws, and what all labels share.
        """
        lead = (self.rule.batches, self.rule.size)
        labels = {f"labels.{name}": jax.ShapeDtypeStruct((*lead, *s.shape), s.dtype)
                  for name, s in self.codec.rows().items()}
        draws = {name: jax.ShapeDtypeStruct((lead[0], *s.shape), s.dtype)
                 for name, s in draw_shapes(self.rule).items()}
        shared = {f"shared.{name}": s for name, s in self.codec.shared().items()}
        return {**labels, **draws, **shared}

    @property
    def bytes(self) -> int:
        """Bytes of all tensors of the file; its header is not among them."""
        return size_of(self.shapes)


@dataclasses.dataclass(frozen=True)
class StoreSettings:
    """Settings of a store, before it is known for which set.

    Attributes:
      codec: a name in `labels.codecs.CODECS`.
      options: of the codec, (name, value) pairs.
      augmentation, mixing, epochs, batch_size, pruned, kept: of the views, see `ViewRule`.
      temperature: by which logits are divided before a softmax. A store of probabilities has it
        fixed; to one of logits it is a default for its use.
      average: what of several teachers is averaged: "probabilities", softmax(logits / temperature),
        or "logits".
      statistics: "running", or "batch": batch normalisations of the teacher take those of the
        batch of views (as LPLD and HALD do).

    Raises:
      ConfigError: a field that cannot be.

    Example:
      >>> StoreSettings("top", (("kept", 3),), epochs=2).plan(100, (8, 8, 1), 10).bytes
      1800
    """

    codec: str = "full"
    options: tuple[tuple[str, Any], ...] = ()
    augmentation: str = "inception"
    mixing: str = "none"
    epochs: int = 300
    batch_size: int = 256
    pruned: float = 0.0
    kept: str = "key"
    temperature: float = 1.0
    average: str = "probabilities"
    statistics: str = "running"

    def __post_init__(self):
        if self.codec not in CODECS:
            raise unknown("codec of labels", self.codec, CODECS)
        fields = {field.name for field in dataclasses.fields(CODECS[self.codec])} - {"classes"}
        for name, _ in self.options:
            if name not in fields:
                raise unknown(f"option of the codec {self.codec!r}", name, fields)
        require_above_zero("temperature", self.temperature, why="logits are divided by it",
                           example=1.0)
        for name, known in (("statistics", MODES), ("average", AVERAGES)):
            if getattr(self, name) not in known:
                raise unknown(f"{name} of teachers", getattr(self, name), known)

    def plan(self, images: int, shape: tuple[int, int, int], classes: int) -> StorePlan:
        """The store of a set of `images` images of `shape` and of `classes` classes.

        Raises:
          ConfigError: a codec that does not fit the classes (k above K), or views that cannot be.
        """
        of_views = {name: getattr(self, name) for name in (
            "augmentation", "mixing", "epochs", "batch_size", "pruned", "kept")}
        return StorePlan(ViewRule(images, shape, **of_views),
                         CODECS[self.codec](classes, **dict(self.options)))


def _codec(name: str, **options: Any) -> dict[str, Any]:
    return {"codec": name, "options": tuple(sorted(options.items()))}


# pattern -> what it sets
_PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    r"full": lambda: _codec("full"),
    r"top(\d+)": lambda k: _codec("top", kept=int(k)),
    r"renormalised(\d+)": lambda k: _codec("top", kept=int(k), rest="renormalised"),
    r"mr(\d+)": lambda k: _codec("top", kept=int(k), rest="absent"),
    r"quant(\d+)": lambda n: _codec("quantised", bits=int(n)),
    r"quant(\d+)store": lambda n: _codec("quantised", bits=int(n), span="store"),
    r"rank(\d+)": lambda r: _codec("low_rank", rank=int(r)),
    r"pruned(\d+(?:\.\d+)?)": lambda factor: {"pruned": _pruned(float(factor))},
}
_KNOWN = ("full, top5, renormalised5, mr5, quant4, quant4store, rank8, pruned10, or two, such as "
          "top5+pruned10")


def store_settings(name: str, **changes: Any) -> StoreSettings:
    """The settings that the command line calls by a short name.

    Args:
      name: "full" (logits in float16); "topK", "renormalisedK" and "mrK" (K pairs of class and
        value, see `TopK`: MR-k keeps logits); "quantN" and "quantNstore" (N bits, a range for each
        label or for the store); "rankR"; "prunedX" (one batch in X is kept, as LPLD's 10x); or
        several with "+" between them.
      **changes: fields of `StoreSettings`.

    Returns:
      The settings.

    Raises:
      ConfigError: a name that cannot be read, two codecs, or a field that cannot be.

    Example:
      >>> store_settings("top5+pruned10", epochs=100).pruned
      0.9
    """
    found: dict[str, Any] = {}
    for part in str(name).split("+"):
        matches = [(make, match) for pattern, make in _PARTS.items()
                   if (match := re.fullmatch(pattern, part))]
        if not matches:
            raise ConfigError(f"label store {str(name)[:80]!r} has the part {part[:40]!r}",
                              fix=f"pass one of {_KNOWN}")
        make, match = matches[0]
        more = make(*match.groups())
        if found.keys() & more.keys():
            raise ConfigError(f"label store {str(name)[:80]!r} says {', '.join(more)} twice",
                              fix=f"pass one of {_KNOWN}")
        found |= more
    known = {field.name for field in dataclasses.fields(StoreSettings)}
    for field in changes:
        if field not in known:
            raise unknown("setting of a label store", field, known)
    return StoreSettings(**{**found, **changes})


def _pruned(factor: float) -> float:
    if factor < 1:
        raise ConfigError(f"pruned{factor:g} keeps more batches than there are",
                          fix="pass pruned10 for one in ten")
    return 1.0 - 1.0 / factor
