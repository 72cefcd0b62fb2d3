"""What an evaluation protocol is composed of: frozen records of plain values, checked when made."""

from __future__ import annotations

import dataclasses

from dd_jax import kernels, nets
from dd_jax.augment.table import AUGMENTATIONS
from dd_jax.errors import ConfigError, unknown
from dd_jax.evaluate.optimizers import OPTIMIZERS, SCHEDULES
from dd_jax.evaluate.ranges import check_fields
from dd_jax.labels.losses import (
    cross_entropy,
    integer_cross_entropy,
    mean_squared_error,
    squared_error,
)
from dd_jax.nets.layers import INIT_STYLES, NORMS
from dd_jax.solvers import check_ridge

# Those that need no teacher; another `Supervision` may have any of `labels.losses`.
PROTOCOL_LOSSES = {
    "auto": None,
    "free_cross_entropy": cross_entropy,
    "cross_entropy": cross_entropy,
    "integer_cross_entropy": integer_cross_entropy,
    "squared_error": squared_error,
    "mean_squared_error": mean_squared_error,
}
ORDERS = ("random", "classes", "stored")


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """The architecture.

    Attributes:
      name: a name in `nets.NETWORKS`.
      depth, width, norm, init_style, first_padding: of these it is given what it takes; a padding
        of None is the default.
    """

    name: str = "convnet"
    depth: int = 3
    width: int = 128
    norm: str = "instance"
    init_style: str = "torch"
    first_padding: int | None = None

    def __post_init__(self):
        check_fields(self)
        _require_name("network", self.name, nets.NETWORKS)
        _require_name("normalisation", self.norm, NORMS)
        _require_name("initialisation", self.init_style, INIT_STYLES)


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How the parameters follow the gradient.

    Attributes:
      name: "sgd" (momentum, coupled weight decay), "adam", or "adamw" (decoupled decay).
      learning_rate: peak rate, or a tuple of one for each step, which then is the schedule.
      momentum, weight_decay: of "sgd"; the latter of "adamw", too.
      schedule: "constant"; "step_drop" (times 0.1 after half the epochs, momentum restarted there,
        as the official DC code rebuilds its optimiser); "milestones" (times 0.2 after two thirds
        and again after five sixths of the epochs); "fifths" (times 0.5 after each fifth of the
        epochs); "warmup_cosine" (linear to the peak in `warmup` steps, then cosine to
        `final_fraction` of it).
      warmup, final_fraction: of "warmup_cosine".
      learned_rate: the set's own learning rate takes the place of `learning_rate`, where it has
        one: of a set in stored order it may be one for each step.
      pull: added to the loss is `pull` times the squared distance from the initial parameters.
      clip: gradients that are longer are cut to this norm; 0 for none.
    """

    name: str = "sgd"
    learning_rate: float | tuple[float, ...] = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "step_drop"
    warmup: int = 500
    final_fraction: float = 0.01
    learned_rate: bool = False
    pull: float = 0.0
    clip: float = 0.0

    def __post_init__(self):
        if isinstance(self.learning_rate, list):  # out of a file
            object.__setattr__(self, "learning_rate", tuple(self.learning_rate))
        check_fields(self)
        _require_name("optimizer", self.name, OPTIMIZERS)
        _require_name("schedule", self.schedule, SCHEDULES)


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """Which images a step takes.

    Attributes:
      epochs: passes over the set.
      batch_size: images per step; a smaller set goes whole.
      order: of a new permutation in every epoch ("random"); as many of each class, drawn anew in
        every step ("classes", and where a batch is smaller than the number of classes one of each
        of some); or the set's batches one after another as they were distilled ("stored"), see
        `train.stored_order`.
    """

    epochs: int = 1001
    batch_size: int = 256
    order: str = "random"

    def __post_init__(self):
        check_fields(self)
        _require_name("order", self.order, ORDERS)


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """How images look when they are trained on.

    Attributes:
      augmentation: a name in `augment.by_name`; one draw per image in every step.
      cutmix: probability that a batch is cut and mixed after it, see `augment.cutmix`.
      mixup: probability that a batch is blended after it, see `augment.mixup`; not with CutMix.
    """

    augmentation: str = "none"
    cutmix: float = 0.0
    mixup: float = 0.0

    def __post_init__(self):
        check_fields(self)
        if self.cutmix and self.mixup:
            raise ConfigError(f"cutmix is {self.cutmix} and mixup {self.mixup}, expected one of "
                              "them", fix="pass cutmix=0.0")
        _require_name("augmentation", self.augmentation, AUGMENTATIONS)


@dataclasses.dataclass(frozen=True)
class SupervisionSettings:
    """What networks are told where the set's labels teach them.

    Attributes:
      loss: a name in `PROTOCOL_LOSSES`; "free_cross_entropy" (minus the sum of labels times
        log-probabilities, whatever the labels are); or "auto": cross-entropy or squared error, for
        what the set's labels mean.
      centre_outputs: the network's own outputs at initialisation are subtracted from its outputs,
        in training and in testing.
      output_scale: outputs (after centring) are divided by it. Squared error to the labels is then
        that of the plain outputs to `output_scale` times the labels, over `output_scale`^2.
    """

    loss: str = "auto"
    centre_outputs: bool = False
    output_scale: float = 1.0

    def __post_init__(self):
        check_fields(self)
        _require_name("loss", self.loss, PROTOCOL_LOSSES)


@dataclasses.dataclass(frozen=True)
class FullSettings:
    """What differs for the baseline of all real images.

    Attributes:
      epochs, batch_size: of its training.
    """

    epochs: int = 20
    batch_size: int = 256

    def __post_init__(self):
        check_fields(self, prefix="full_")


@dataclasses.dataclass(frozen=True)
class ReadOut:
    """Which kernel regression predicts from a set; plain values that travel with it.

    Attributes:
      kernel: a name in `kernels.named`.
      kind: "ntk" or "nngp".
      ridge, mode: the regulariser, see `solvers.fit_kernel`.
    """

    kernel: str
    kind: str = "ntk"
    ridge: float = 1e-6
    mode: str = "trace_mean"

    def __post_init__(self):
        check_fields(self)
        check_ridge(self.ridge, self.mode)
        kernels.named(self.kernel, kind=self.kind)


def _require_name(label: str, value: object, valid) -> None:
    if value not in valid:
        raise unknown(label, value, valid)
