"""All losses by name, and how a name becomes one.

A name is for files and the command line; in code a plain function is a loss, too. Written out, a
loss is its name, perhaps with options behind an @: "kl", "kl@4" (the first option),
"kl@4,rescale=no" or "js@share=0.5,temperature=2". A sum of several is "0.1*cross_entropy+0.9*kl@4".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any

from dd_jax.errors import ConfigError, nearest, unknown
from dd_jax.labels.losses import (
    adaptive_kl,
    adversarial,
    alpha_beta,
    augmix,
    bd_kd,
    class_relation,
    cosine,
    covariate_shift,
    dist,
    divergences,
    dkd,
    dual_head,
    ferkd,
    ldr,
    luminet,
    mst,
    norm_and_direction,
    ofa,
    orthogonal,
    plain,
    pld,
    pseudo_classes,
    sinkhorn,
    skewed,
    sla,
    square_head,
    standardised,
    swing,
    taid,
    two_heads,
    uld,
)
from dd_jax.labels.losses.added import WeightedSum, weighted_sum
from dd_jax.labels.losses.record import Entry, NamedLoss, make
from dd_jax.labels.losses.targets import KINDS, fits


def _entries(*modules: ModuleType) -> Mapping[str, Entry]:
    return MappingProxyType(
        {name: entry for module in modules for name, entry in module.ENTRIES.items()})


# Those of logits and a kind of targets; and those that look at more, or are told more, see
# `labels.told_by` for where that comes from.
OF_LOGITS = _entries(
    plain, divergences, adaptive_kl, alpha_beta, skewed, sinkhorn, uld, bd_kd, pld, taid, luminet,
    dual_head, dkd, dist, standardised, ofa, class_relation, sla, ldr, ferkd, mst, swing, augmix)
OF_MORE = _entries(norm_and_direction, orthogonal, square_head, cosine, two_heads, adversarial,
                   pseudo_classes, covariate_shift)
LOSSES: Mapping[str, Entry] = MappingProxyType({**OF_LOGITS, **OF_MORE})


def named(name: str, **options: Any) -> NamedLoss:
    """A loss of the table with its options.

    Args:
      name: in `LOSSES`.
      **options: those that differ from the entry's.

    Returns:
      A `NamedLoss`, callable as (logits, targets) -> [B].

    Raises:
      ConfigError: a name or an option that is not known, a value that an option cannot have.

    Example:
      >>> named("kl", temperature=4) == named("kl")
      True
      >>> named("kl", temperature=0)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: loss 'kl': temperature is 0, expected more: ...
    """
    if not isinstance(name, str) or name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return make(name, LOSSES[name], options)


def parse(text: str) -> NamedLoss | WeightedSum:
    """A loss as it is written on the command line, see the module.

    Args:
      text: NAME, or NAME@[VALUE][,OPTION=VALUE ...] where VALUE alone is that of the first option;
        or several of them, each perhaps with WEIGHT* before it, with + between.

    Returns:
      A `NamedLoss`, or a `WeightedSum`.

    Raises:
      ConfigError: as `named` and `weighted_sum`; a value that cannot be read, an option without
        a value or twice.

    Example:
      >>> parse("kl@2,rescale=no").options
      (('temperature', 2.0), ('rescale', False))
      >>> parse("cross_entropy+1.5*uld").name
      '1*cross_entropy+1.5*uld'
    """
    terms = str(text).split("+")
    if len(terms) == 1 and "*" not in text:
        return _parse_one(text)
    parts = [part.rpartition("*") for part in terms]
    return weighted_sum(*((_number(text, weight) if star else 1.0, _parse_one(loss))
                          for weight, star, loss in parts))


def _parse_one(text: str) -> NamedLoss:
    name, at, rest = str(text).partition("@")
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    defaults, options = LOSSES[name].options, {}
    if at and not defaults:
        raise ConfigError(f"loss {name!r} has no options, given {rest!r}", fix=f"write {name}")
    for place, part in enumerate(rest.split(",") if at else ()):
        option, equals, value = part.partition("=")
        if not equals:
            if place:
                raise ConfigError(f"loss {text!r} has {part!r}, expected OPTION=VALUE",
                                  fix=_written(name))
            option, value = next(iter(defaults)), part
        if option in options:
            raise ConfigError(f"loss {text!r} has {option} twice", fix=_written(name))
        if option not in defaults:
            raise unknown(f"option of the loss {name!r}", option, defaults)
        options[option] = _read(text, name, value, defaults[option])
    return named(name, **options)


def require_targets(loss: object, found: str, *, what: str = "the labels") -> None:
    """Refuses a loss that takes other targets than there are; plain functions are not asked.

    Args:
      loss: a `NamedLoss`, or any function.
      found: what there is: a kind in `targets.KINDS`, or "one_hot", "centred".
      what: that which there is, for the message.

    Raises:
      ConfigError: as said; names the losses that would fit.

    Example:
      >>> require_targets(named("integer_cross_entropy"), "probabilities")
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: loss 'integer_cross_entropy' takes class numbers [B], ...
    """
    wanted = getattr(loss, "targets", found)
    if fits(wanted, found):
        return
    fitting = losses_for(found)
    raise ConfigError(
        f"loss {getattr(loss, 'name', loss)!r} takes {KINDS.get(wanted, wanted)}, and {what} are "
        f"{KINDS.get(found, found)}",
        fix="losses that fit: " + (", ".join(fitting) if fitting else "none"))


def losses_for(found: str) -> tuple[str, ...]:
    """Names of the losses that take targets of a kind.

    Example:
      >>> losses_for("classes")
      ('adaptive_ldr', 'integer_cross_entropy', 'ldr')
    """
    return tuple(sorted(name for name, entry in LOSSES.items() if fits(entry.targets, found)))


_SWITCHES = MappingProxyType({"yes": True, "true": True, "no": False, "false": False})


def _read(text: str, name: str, value: str, default: Any) -> Any:
    """A value of the kind that the default is."""
    if isinstance(default, bool):
        if value.lower() not in _SWITCHES:
            raise ConfigError(f"loss {text!r} has {value!r}, expected yes or no",
                              fix=nearest(value, _SWITCHES))
        return _SWITCHES[value.lower()]
    return _number(text, value, type(default), fix=_written(name))


def _number(text: str, value: str, kind: type = float, *, fix: str = "write 0.5*kl") -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"loss {text!r} has {value!r}, expected a number", fix=fix) from None


def _written(name: str) -> str:
    """How a loss is written with its defaults."""
    options = LOSSES[name].options.items()
    return f"write {name}@" + ",".join(
        f"{option}={('no', 'yes')[value] if isinstance(value, bool) else value}"
        for option, value in options)
