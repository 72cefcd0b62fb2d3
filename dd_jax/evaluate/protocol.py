"""Evaluation protocols: how a fresh network is trained on a set before it is tested.

A protocol is a frozen record of plain values, so that it prints, compares, and travels inside the
distilled set. Every method names the one its paper used; `cpu` is the common small one.
"""

from __future__ import annotations

import dataclasses

import optax

from dd_jax import nets
from dd_jax.errors import ConfigError, unknown
from dd_jax.types import DataSpec, Network

SCHEDULES = ("constant", "step_drop", "warmup_cosine")
OPTIMIZERS = ("sgd", "adam")
LOSSES = ("auto", "cross_entropy", "squared_error")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How fresh networks are trained on a set.

    Attributes:
      name: for files and tables.
      network: a name in `nets.NETWORKS`, with depth, width, norm and init_style below.
      optimizer: "sgd" (momentum, coupled weight decay) or "adam".
      learning_rate: peak rate.
      momentum, weight_decay: of "sgd".
      schedule: "constant"; "step_drop" (times 0.1 after half the epochs, momentum restarted there,
        as the official DC code rebuilds its optimiser); "warmup_cosine" (linear to the peak in
        `warmup` steps, then cosine to `final_fraction` of it).
      epochs: passes over the set.
      batch_size: images per step; a smaller set goes whole.
      augmentation: a name in `augment.by_name`; one draw per image in every step.
      loss: "cross_entropy", "squared_error", or "auto" for what the set's labels mean.
      full_epochs, full_batch_size: for the full-data baseline.
      seeds: networks trained and tested.
    """

    name: str
    network: str = "convnet"
    depth: int = 3
    width: int = 128
    norm: str = "instance"
    init_style: str = "torch"
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "step_drop"
    warmup: int = 500
    final_fraction: float = 0.01
    epochs: int = 1001
    batch_size: int = 256
    augmentation: str = "none"
    loss: str = "auto"
    full_epochs: int = 5
    full_batch_size: int = 256
    seeds: int = 5

    def __post_init__(self):
        for label, value, valid in (
            ("schedule", self.schedule, SCHEDULES),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("loss", self.loss, LOSSES),
            ("network", self.network, nets.NETWORKS),
        ):
            if value not in valid:
                raise unknown(label, value, valid)
        for label in ("depth", "width", "epochs", "batch_size", "full_epochs", "full_batch_size",
                      "seeds"):
            value = getattr(self, label)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"protocol {label} is {value!r}, expected an integer >= 1",
                                  fix=f"pass {label}=1 or more")
        if not 0.0 <= self.learning_rate < float("inf"):
            raise ConfigError(f"protocol learning_rate is {self.learning_rate!r}, expected >= 0",
                              fix="pass for example learning_rate=0.01")


def build_network(protocol: Protocol, spec: DataSpec) -> Network:
    """The protocol's architecture for this data."""
    options = {"depth": protocol.depth, "width": protocol.width, "init_style": protocol.init_style}
    if protocol.network != "mlp":
        options["norm"] = protocol.norm
    return nets.by_name(protocol.network, spec, **options)


def for_network(protocol: Protocol, network: str) -> Protocol:
    """The same protocol on another architecture, for cross-architecture tests.

    Width, normalisation and initialisation stay as they are, but an MLP is 128 wide.

    Example:
      >>> for_network(Protocol("dc"), "mlp").network
      'mlp'
    """
    if network not in nets.NETWORKS:
        raise unknown("network", network, nets.NETWORKS)
    if network == protocol.network:
        return protocol
    if network == "mlp":
        return dataclasses.replace(protocol, network="mlp", width=128)
    return dataclasses.replace(protocol, network=network)


def directions(protocol: Protocol) -> optax.GradientTransformation:
    """The optimiser without its learning rate: gradients -> descent directions of unit rate."""
    if protocol.optimizer == "adam":
        return optax.scale_by_adam()
    return optax.chain(
        optax.add_decayed_weights(protocol.weight_decay), optax.trace(decay=protocol.momentum)
    )


def rate_schedule(protocol: Protocol, total_steps: int, drop_step: int) -> optax.Schedule:
    """Learning rate as a function of the step, for a run of `total_steps`."""
    peak = protocol.learning_rate
    if protocol.schedule == "step_drop":
        return optax.piecewise_constant_schedule(peak, {drop_step: 0.1})
    if protocol.schedule == "warmup_cosine":
        warmup = min(protocol.warmup, total_steps // 2)
        return optax.warmup_cosine_decay_schedule(
            0.0, peak, warmup, max(total_steps, warmup + 1), peak * protocol.final_fraction
        )
    return optax.constant_schedule(peak)
