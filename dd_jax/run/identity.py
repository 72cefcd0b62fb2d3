"""Which run this is: its settings and JAX's switches, compared field by field with a stored run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import jax

from dd_jax.backend import switches
from dd_jax.errors import CheckpointError, ConfigError, printable
from dd_jax.store.envelope import differences, plain
from dd_jax.versions import versions

_FREE, _TESTED = ("log_every", "evaluation"), "evaluation_"


def full_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings as JSON can hold them, with the switches of JAX that change numbers.

    Example:
      >>> full_identity({"seed": 0})["switches"]["jax_enable_x64"]
      False
    """
    return {**plain(identity, "identity", error=ConfigError), "switches": switches()}


def conditions() -> dict[str, Any]:
    """Versions and devices: what must be equal for a resumed run to be equal bit for bit."""
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return {**versions(), "devices": devices}


def shaping(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an identity that shapes a run: not how it is logged, nor how its set is tested.

    A run in stages trains networks between them as its set is tested, and keeps all.

    Example:
      >>> shaping({"log_every": 5, "settings": {"rate": 1, "evaluation_epochs": 9}})
      {'settings': {'rate': 1}}
    """
    settings = identity.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    if "stages" in identity or "stage" in settings:
        return dict(identity)
    kept = {name: value for name, value in identity.items() if name not in _FREE}
    if settings:
        kept["settings"] = {name: value for name, value in settings.items()
                            if not name.startswith(_TESTED)}
    return kept


def check_identity(
    stored: Mapping[str, Any], current: Mapping[str, Any], *, where: str = "the folder"
) -> None:
    """Raises CheckpointError with every field in which two runs differ.

    Args:
      stored: the identity found in the folder.
      current: that of this run.
      where: the folder, for the message.

    Example:
      >>> check_identity({"lr": 0.1, "betas": [0.9]}, {"lr": 0.1, "betas": [0.9]})
    """
    stored, current = shaping(stored), shaping(current)
    found = [f"{name}: {a} in the folder, {b} now" for name, a, b in differences(stored, current)]
    if found:
        raise CheckpointError(
            f"{where} belongs to another run: " + "; ".join(found),
            fix="use another folder, or go back to the settings of the folder")


def warn_of_other_conditions(stored: Mapping[str, Any]) -> None:
    """Warns if the run goes on under other versions or devices than it was saved with."""
    changed = [f"{k} {printable(stored.get(k), most=80)} -> {v}"
               for k, v in conditions().items() if stored.get(k) != v]
    if changed:
        warnings.warn("the checkpoint was saved under other conditions, the continued run may "
                      "differ in its last bits: " + ", ".join(changed), stacklevel=3)
