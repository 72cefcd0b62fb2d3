"""Evaluation protocols: how a fresh network is trained on a set before it is tested.

A protocol is a frozen record of plain values, so that it prints, compares, and travels inside the
distilled set. Every method names the one its paper used; `cpu` is the common small one.
"""

from __future__ import annotations

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import optax

from dd_jax import nets
from dd_jax.augment.table import AUGMENTATIONS
from dd_jax.errors import ConfigError, require_probability, require_whole, unknown
from dd_jax.nets.layers import NORMS
from dd_jax.types import DataSpec, Network, Outputs, PyTree

SCHEDULES = ("constant", "step_drop", "milestones", "fifths", "warmup_cosine")
OPTIMIZERS = ("sgd", "adam", "adamw")
_NETWORK_OPTIONS = ("depth", "width", "norm", "init_style", "first_padding")
# Of architectures whose width is not a ConvNet's.
_OWN_WIDTHS = {"mlp": 128, "resnet18": 64, "vgg11": 64, "alexnet": 128}
LOSSES = ("auto", "cross_entropy", "free_cross_entropy", "squared_error", "mean_squared_error")
ORDERS = ("random", "classes", "stored")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How fresh networks are trained on a set.

    Attributes:
      name: for files and tables.
      network: a name in `nets.NETWORKS`; of depth, width, norm, init_style and first_padding
        (None for the default) it is given what it takes.
      optimizer: "sgd" (momentum, coupled weight decay), "adam", or "adamw" (decoupled decay).
      learning_rate: peak rate, or a tuple of one for each step, which then is the schedule.
      learned_rate: the set's own learning rate takes its place, where it has one: of a set in
        stored order it may be one for each step.
      momentum, weight_decay: of "sgd"; the latter of "adamw", too.
      pull: added to the loss is `pull` times the squared distance from the initial parameters.
      centre_outputs: the network's own outputs at initialisation are subtracted from its outputs,
        in training and in testing.
      output_scale: outputs (after centring) are divided by it. Squared error to the labels is then
        that of the plain outputs to `output_scale` times the labels, over `output_scale`^2.
      schedule: "constant"; "step_drop" (times 0.1 after half the epochs, momentum restarted there,
        as the official DC code rebuilds its optimiser); "milestones" (times 0.2 after two thirds
        and again after five sixths of the epochs); "fifths" (times 0.5 after each fifth of the
        epochs); "warmup_cosine" (linear to the peak in `warmup` steps, then cosine to
        `final_fraction` of it).
      epochs: passes over the set.
      batch_size: images per step; a smaller set goes whole.
      order: which images a step takes: of a new permutation in every epoch ("random"); as many of
        each class, drawn anew in every step ("classes", and where a batch is smaller than the
        number of classes one of each of some); or the set's batches one after another as they
        were distilled ("stored"), see `train.stored_order`.
      start_seed: every network starts from the parameters that this seed draws; None: each from its
        own.
      augmentation: a name in `augment.by_name`; one draw per image in every step.
      cutmix: probability that a batch is cut and mixed after it, see `augment.cutmix`.
      loss: "cross_entropy", "free_cross_entropy" (minus the sum of labels times log-probabilities,
        whatever the labels are), "squared_error" (half, summed over classes),
        "mean_squared_error" (mean over classes), or "auto": "cross_entropy" or "squared_error", for
        what the set's labels mean.
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
    learning_rate: float | tuple[float, ...] = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "step_drop"
    warmup: int = 500
    final_fraction: float = 0.01
    epochs: int = 1001
    batch_size: int = 256
    augmentation: str = "none"
    cutmix: float = 0.0
    loss: str = "auto"
    full_epochs: int = 20
    full_batch_size: int = 256
    seeds: int = 5
    first_padding: int | None = None
    pull: float = 0.0
    centre_outputs: bool = False
    output_scale: float = 1.0
    learned_rate: bool = False
    order: str = "random"
    start_seed: int | None = None
    read_out: object = None

    def __post_init__(self):
        if isinstance(self.learning_rate, list):  # out of a file
            object.__setattr__(self, "learning_rate", tuple(self.learning_rate))
        for label, value, valid in (
            ("schedule", self.schedule, SCHEDULES),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("loss", self.loss, LOSSES),
            ("order", self.order, ORDERS),
            ("network", self.network, nets.NETWORKS),
            ("normalisation", self.norm, NORMS),
            ("augmentation", self.augmentation, AUGMENTATIONS),
        ):
            if value not in valid:
                raise unknown(label, value, valid)
        for label in ("depth", "width", "epochs", "batch_size", "full_epochs", "full_batch_size",
                      "seeds"):
            value = getattr(self, label)
            require_whole(f"protocol {label}", value)
        if self.start_seed is not None:
            require_whole("protocol start_seed", self.start_seed, least=0, example=0)
        rates = self.learning_rate if isinstance(self.learning_rate, tuple) else (
            self.learning_rate,)
        for label, example, value in (
            *(("learning_rate", 0.01, rate) for rate in rates), ("pull", 1e-3, self.pull),
        ):
            if not 0.0 <= value < float("inf"):
                raise ConfigError(f"protocol {label} is {value!r}, expected >= 0",
                                  fix=f"pass for example {label}={example}")
        require_probability("protocol cutmix", self.cutmix)
        if self.order != "random" and (self.schedule != "constant" or self.cutmix):
            raise ConfigError(
                f"a protocol of order {self.order!r} has schedule {self.schedule!r} and cutmix "
                f"{self.cutmix}, which need epochs that are permutations",
                fix="pass schedule='constant' and cutmix=0.0")
        if not 0.0 < self.output_scale < float("inf"):
            raise ConfigError(f"protocol output_scale is {self.output_scale!r}, expected > 0",
                              fix="pass output_scale=1.0 for plain outputs")


def protocol(name: str, **settings) -> Protocol:
    """A protocol by its name and settings."""
    return Protocol(name=name, **settings)


def build_network(protocol: Protocol, spec: DataSpec) -> Network:
    """The protocol's architecture for this data, with centred and scaled outputs if it says so."""
    takes = inspect.signature(nets.NETWORKS[protocol.network]).parameters
    options = {name: getattr(protocol, name) for name in _NETWORK_OPTIONS if name in takes}
    network = nets.by_name(protocol.network, spec, **options)
    if protocol.centre_outputs:
        network = centred(network)
    return network if protocol.output_scale == 1.0 else scaled(network, protocol.output_scale)


def centred(network: Network) -> Network:
    """The network whose logits are f(x) - f_0(x), with f_0 the same network at initialisation.

    Its variables carry the initial ones along as "initial", which get no gradient.

    Example:
      >>> import jax
      >>> from dd_jax.types import DataSpec
      >>> network = centred(nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4))
      >>> variables = network.init(jax.random.key(0))
      >>> network.apply(variables, jax.numpy.ones((1, 2, 2, 1))).logits.tolist()
      [[0.0, 0.0]]
    """

    def init(key: jax.Array) -> PyTree:
        variables = network.init(key)
        return {**variables, "initial": variables}

    def apply(variables: PyTree, images: jax.Array, train: bool = False) -> Outputs:
        now = {name: part for name, part in variables.items() if name != "initial"}
        outputs = network.apply(now, images, train)
        initial = jax.lax.stop_gradient(network.apply(variables["initial"], images, train).logits)
        return outputs._replace(logits=outputs.logits - initial)

    return Network(init=init, apply=apply, name=network.name)


def scaled(network: Network, scale: float) -> Network:
    """The network whose logits are divided by `scale`."""

    def apply(variables: PyTree, images: jax.Array, train: bool = False) -> Outputs:
        outputs = network.apply(variables, images, train)
        return outputs._replace(logits=outputs.logits / scale)

    return Network(init=network.init, apply=apply, name=network.name)


def for_network(protocol: Protocol, network: str) -> Protocol:
    """The same protocol on another architecture, for cross-architecture tests.

    Width, normalisation and initialisation stay as they are, but an MLP and an AlexNet are 128 wide
    and the first stage of a ResNet or VGG 64.

    Example:
      >>> for_network(Protocol("dc"), "mlp").network
      'mlp'
    """
    if network not in nets.NETWORKS:
        raise unknown("network", network, nets.NETWORKS)
    if network == protocol.network:
        return protocol
    width = _OWN_WIDTHS.get(network, protocol.width)
    return dataclasses.replace(protocol, network=network, width=width)


def directions(protocol: Protocol) -> optax.GradientTransformation:
    """The optimiser without its learning rate: gradients -> descent directions of unit rate."""
    if protocol.optimizer == "adam":
        return optax.scale_by_adam()
    if protocol.optimizer == "adamw":
        return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(protocol.weight_decay))
    return optax.chain(
        optax.add_decayed_weights(protocol.weight_decay), optax.trace(decay=protocol.momentum)
    )


def drop_epoch(epochs: int) -> int:
    """First epoch after the drop of "step_drop" in a run of so many."""
    # The official loop runs E + 1 epochs, numbered from 0, and drops after epoch E // 2 + 1.
    return (epochs - 1) // 2 + 2


def rate_schedule(protocol: Protocol, epochs: int, per_epoch: int) -> optax.Schedule:
    """Learning rate as a function of the step, for `epochs` of `per_epoch` steps each."""
    peak, total_steps = protocol.learning_rate, epochs * per_epoch
    if isinstance(peak, tuple):
        if len(peak) != total_steps:
            raise ConfigError(
                f"there are {len(peak)} learning rates for {epochs} epochs of {per_epoch} steps",
                fix=f"train for {len(peak)} steps, as the set was made for")
        return lambda step: jnp.asarray(peak)[step]
    if protocol.schedule == "step_drop":
        return optax.piecewise_constant_schedule(peak, {drop_epoch(epochs) * per_epoch: 0.1})
    if protocol.schedule == "milestones":
        drops = [peak, 0.2 * peak, 0.04 * peak]
        return optax.join_schedules([optax.constant_schedule(rate) for rate in drops],
                                    [2 * epochs // 3 * per_epoch, 5 * epochs // 6 * per_epoch])
    if protocol.schedule == "fifths":
        ends = [fifth * epochs // 5 * per_epoch for fifth in range(1, 5)]
        rates = [optax.constant_schedule(peak * 0.5**fifth) for fifth in range(5)]
        return optax.join_schedules(rates, ends)
    if protocol.schedule == "warmup_cosine":
        warmup = min(protocol.warmup, total_steps // 2)
        return optax.warmup_cosine_decay_schedule(
            0.0, peak, warmup, max(total_steps, warmup + 1), peak * protocol.final_fraction
        )
    return optax.constant_schedule(peak)
