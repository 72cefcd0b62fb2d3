"""Evaluation protocols: how a fresh network is trained on a set before it is tested.

A protocol is a frozen composition of plain values, so that it prints, compares, and travels inside
the distilled set. Every method names the one its paper used; `cpu` is the common small one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dd_jax import nets
from dd_jax.errors import ConfigError, SetFileError, unknown
from dd_jax.evaluate.ranges import check_fields
from dd_jax.evaluate.settings import (
    FullSettings,
    NetworkSettings,
    OptimizerSettings,
    PlanSettings,
    ReadOut,
    SupervisionSettings,
    ViewSettings,
)

# Of architectures whose width is not a ConvNet's.
_OWN_WIDTHS = {"mlp": 128, "resnet18": 64, "resnet50": 64, "vgg11": 64, "alexnet": 128,
               "mobilenet_v2": 32, "wrn16_2": 32, "vit_tiny": 192}
_GROUPS = {"network": NetworkSettings, "optimizer": OptimizerSettings, "plan": PlanSettings,
           "views": ViewSettings, "supervision": SupervisionSettings, "full": FullSettings}
_OWN = ("name", "seeds", "start_seed", "read_out")
_LATER = (("optimizer", "clip"), ("views", "mixup"))


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How fresh networks are trained on a set; `protocol` makes one from flat names.

    Attributes:
      name: for files and tables.
      network, optimizer, plan, views, supervision: as their records say.
      full: what differs for the baseline of all real images.
      seeds: networks trained and tested.
      start_seed: every network starts from the parameters that this seed draws; None: each from its
        own.
      read_out: the kernel regression that also predicts from the set, None where there is none.
    """

    name: str
    network: NetworkSettings = NetworkSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    plan: PlanSettings = PlanSettings()
    views: ViewSettings = ViewSettings()
    supervision: SupervisionSettings = SupervisionSettings()
    full: FullSettings = FullSettings()
    seeds: int = 5
    start_seed: int | None = None
    read_out: ReadOut | None = None

    def __post_init__(self):
        check_fields(self)
        order, schedule, views = self.plan.order, self.optimizer.schedule, self.views
        if order != "random" and (schedule != "constant" or views.cutmix or views.mixup):
            raise ConfigError(
                f"a protocol of order {order!r} has schedule {schedule!r}, cutmix {views.cutmix} "
                f"and mixup {views.mixup}, which need epochs that are permutations",
                fix="pass schedule='constant', cutmix=0.0 and mixup=0.0")

    def varied(self, **flat: Any) -> Protocol:
        """The same with other values, by flat names as in `protocol`.

        Raises:
          ConfigError: an unknown name, or a value that cannot be.

        Example:
          >>> protocol("dc").varied(epochs=7, full_epochs=2).plan.epochs
          7
        """
        own, groups = _grouped(flat)
        changed = {name: dataclasses.replace(getattr(self, name), **values)
                   for name, values in groups.items()}
        return dataclasses.replace(self, **own, **changed)

    def steps(self, images: int) -> int:
        """Steps of the optimizer for a network that is trained on so many images.

        Example:
          >>> protocol("dc", epochs=10, batch_size=64).steps(100)
          20
        """
        return self.plan.epochs * -(-images // min(images, self.plan.batch_size))

    def plain(self) -> dict[str, Any]:
        """Nested dictionaries of plain values, for files.

        "read_out", "clip" and "mixup" only where there is one: so older releases read the others,
        and what is named by its protocol keeps its name.
        """
        values = dataclasses.asdict(self)
        if self.read_out is None:
            del values["read_out"]
        for group, field in _LATER:
            if not values[group][field]:
                del values[group][field]
        return values

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Protocol:
        """The protocol that `plain` wrote; also one in the flat names of older versions.

        Raises:
          SetFileError: names or values that no protocol has.
          ConfigError: a value that cannot be.

        Example:
          >>> Protocol.from_plain({"name": "dc", "epochs": 7}) == protocol("dc", epochs=7)
          True
        """
        if not values:
            raise SetFileError("the set comes without an evaluation protocol",
                               fix="save it with evaluation=protocol.plain(), or ask for kernel "
                                   "regression alone")
        try:
            flat = _flat(values)
            if flat.get("read_out") is not None:
                flat["read_out"] = ReadOut(**flat["read_out"])
            return protocol(**flat)
        except (TypeError, AttributeError) as error:
            raise SetFileError(f"the set's evaluation protocol is not readable: {error}",
                               fix="use the version of dd_jax that wrote the set") from error


def protocol(name: str, **flat: Any) -> Protocol:
    """A `Protocol` from flat names, each put in its place.

    Args:
      name: for files and tables.
      **flat: fields of the records by their own names, but network and optimizer for the names of
        these two, and full_epochs and full_batch_size for the baseline of all real images.

    Returns:
      A `Protocol`.

    Raises:
      ConfigError: an unknown name, or a value that cannot be.

    Example:
      >>> protocol("dc", network="mlp", momentum=0.5, batch_size=10).network.name
      'mlp'
    """
    return Protocol(name).varied(**flat)


def _flat_name(group: str, field: str) -> str:
    if group == "full":
        return f"full_{field}"
    return group if field == "name" else field


# Flat name -> (group, or None for the protocol's own fields; field).
_PLACES = {name: (None, name) for name in _OWN} | {
    _flat_name(group, field.name): (group, field.name)
    for group, settings in _GROUPS.items() for field in dataclasses.fields(settings)}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values, nested or flat, by flat names; a TypeError for a name that no protocol has."""
    flat = {}
    for name, value in values.items():
        nested = name in _GROUPS and isinstance(value, Mapping)
        for field, part in value.items() if nested else [(name, value)]:
            known = _flat_name(name, field) if nested else name
            if known not in _PLACES or (nested and _PLACES[known] != (name, field)):
                raise TypeError(f"it has {name}.{field}" if nested else f"it has {name!r}")
            flat[known] = part
    return flat


def _grouped(flat: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """(fields of the protocol's own, those of each group), of flat names."""
    own, groups = {}, {}
    for name, value in flat.items():
        if name not in _PLACES:
            raise unknown("protocol setting", name, _PLACES)
        group, field = _PLACES[name]
        (own if group is None else groups.setdefault(group, {}))[field] = value
    return own, groups


def for_network(protocol: Protocol, network: str) -> Protocol:
    """The same protocol on another architecture, for cross-architecture tests.

    Width, normalisation and initialisation stay as they are, but an MLP and an AlexNet are 128 wide
    and the first stage of a ResNet or VGG 64, that of WRN-16-2 and the stem of MobileNetV2 32, and
    the tokens of ViT-tiny 192.

    Example:
      >>> for_network(Protocol("dc"), "mlp").network.name
      'mlp'
    """
    if network not in nets.NETWORKS:
        raise unknown("network", network, nets.NETWORKS)
    if network == protocol.network.name:
        return protocol
    width = _OWN_WIDTHS.get(network, protocol.network.width)
    return protocol.varied(network=network, width=width)
