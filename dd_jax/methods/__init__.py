"""One short file per paper: its settings, and how the library's parts make its recipe."""

from __future__ import annotations

from typing import Any

from dd_jax.data import training_part
from dd_jax.distill.plan import Plan, complete
from dd_jax.distill.recipe import Recipe
from dd_jax.methods.frame import METHODS, Method, Published, Settings, get, plan_of
from dd_jax.methods.frame.settings import preset as _preset
from dd_jax.select.memory import bytes_of
from dd_jax.types import RealData, Split


def preset(
    method: str | Method, protocol: str = "official", ipc: float = 1, *, data: str = "", **changes
) -> Settings:
    """The settings of a method for a protocol and a budget, with single ones changed.

    Args:
      method: its name, or its record.
      protocol: "official" or "cpu".
      ipc: images per class.
      data: name of the data, for what the authors have for this data only.
      **changes: any setting of the method.

    Raises:
      ConfigError: unknown method, protocol or setting.
    """
    method = get(method) if isinstance(method, str) else method
    return _preset(method.settings, protocol, ipc, data=data, **changes)


def plan(
    name: str, data: RealData | Split, *, protocol: str = "official", ipc: float = 1,
    memory: str | int | None = None, **changes,
) -> Plan:
    """The plan of a method for this data: what it needs first, and how its recipe follows.

    Args:
      name: of the method, see `METHODS`, or a file of your own that declares one.
      data: the real set (of a `Split`, its training part).
      protocol: "official" or "cpu".
      ipc: images per class.
      memory: bytes that a selection may hold on the device at once, such as "4GB"; by default all
        that there are. It says how large blocks are, and never what is chosen.
      **changes: any setting of the method.

    Returns:
      A `Plan`, for `dd_jax.distill`.

    Raises:
      ConfigError: unknown method, protocol or setting, or a value that cannot be.

    Example:
      >>> import numpy as np, dd_jax as dd
      >>> real = dd.data.from_arrays(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 0, 1, 1]))
      >>> sorted(plan("wmdd", real, protocol="cpu").needs)
      ['targets', 'teacher']
    """
    method, train = get(name), training_part(data)
    settings = preset(method, protocol, ipc, data=train.spec.name, **changes)
    return plan_with(method, settings, train, memory=memory)


def plan_with(
    method: str | Method, settings: Settings, data: RealData | Split, *,
    memory: str | int | None = None,
) -> Plan:
    """The plan of a method with given settings; memory as for `plan`."""
    method = get(method) if isinstance(method, str) else method
    return plan_of(settings, training_part(data), citation=method.citation,
                   memory=None if memory is None else bytes_of(memory))


def recipe(
    name: str, data: RealData | Split, *, protocol: str = "official", ipc: float = 1,
    artefacts: Any = None, **changes,
) -> Recipe:
    """The complete recipe of a method for this data; what it needs comes from the store.

    Args:
      name, data, protocol, ipc, **changes: as for `plan`.
      artefacts: the store or its folder, see `distill.complete`.

    Returns:
      A `Recipe`; vary it further by `dataclasses.replace`.

    Raises:
      ConfigError: unknown method, protocol or setting, or a value that cannot be.

    Example:
      >>> import numpy as np, dd_jax as dd
      >>> real = dd.data.from_arrays(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 0, 1, 1]))
      >>> recipe("dm", real, protocol="cpu", steps=5).steps
      5
    """
    train = training_part(data)
    return complete(plan(name, train, protocol=protocol, ipc=ipc, **changes), train,
                    artefacts=artefacts)


__all__ = ["METHODS", "Method", "Published", "Settings", "get", "plan", "plan_with", "preset",
           "recipe"]
