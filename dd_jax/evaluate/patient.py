"""Students of a patient and consistent teacher: very long trainings that match a function.

Teacher and student see the same strong crop, mirrored and blended by mixup; there are no hard
labels, and the loss is T^2 KL( softmax(t / T) || softmax(z / T) ). A short training turns the order
of settings round, so a schedule is made longer, not steeper.

Differs from the official code:
  - AdamW, whose decay is multiplied by the rate: it is the published one, which is independent of
    the peak, divided by the peak rate. Its first moment is float32 (there bfloat16);
  - crops are those of torchvision, of 8 % of the area at least;
  - one coefficient of mixup for a batch, uniform in 0..1.

Source: Beyer et al., Knowledge Distillation: A Good Teacher Is Patient and Consistent, CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from dd_jax.data.conventions import DIGITS, known_as
from dd_jax.errors import unknown
from dd_jax.evaluate.protocol import Protocol, protocol


class Patience(NamedTuple):
    """What one published training of a student has.

    Attributes:
      epochs, batch_size: of the plan.
      learning_rate: at the peak of a cosine that ends at 0.
      decay: as published, independent of the peak rate.
      temperature: T of the loss.
      warmup: steps to the peak.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    decay: float
    temperature: float
    warmup: int

    @property
    def supervision(self) -> str:
        """The loss against the teacher, as `labels.losses.parse` reads it."""
        return f"kl@{self.temperature:g}"


# By data set and length of the training; "small" is this library's, for sets of a few hundred
# images of 28 to 64 pixels, and no published one.
PATIENCE: Mapping[str, Patience] = MappingProxyType({
    "imagenet": Patience(1200, 4096, 0.03, 3e-4, 1.0, 5000),
    "flowers_fast": Patience(10_000, 512, 3e-3, 3e-4, 10.0, 1500),
    "flowers_medium": Patience(100_000, 512, 1e-3, 1e-4, 1.0, 1500),
    "flowers_long": Patience(1_000_000, 512, 3e-4, 1e-5, 1.0, 1500),
    "pets_fast": Patience(1000, 512, 1e-2, 1e-3, 5.0, 1500),
    "pets_medium": Patience(3000, 512, 3e-3, 3e-4, 10.0, 1500),
    "pets_long": Patience(30_000, 512, 3e-3, 1e-5, 2.0, 1500),
    "small": Patience(3000, 256, 3e-3, 3e-4, 4.0, 500),
})


def patient(name: str = "small", *, data: str = "", **flat: Any) -> Protocol:
    """The protocol of a patient teacher's student; `PATIENCE[name].supervision` is its loss.

    It is for a live teacher: give `evaluate` its supervision, such as `labels.teacher`.

    Args:
      name: in `PATIENCE`.
      data: name of the data set, whose images are not mirrored where they are digits.
      **flat: other values, as for `protocol`: network="resnet18", epochs=300.

    Returns:
      A `Protocol`.

    Raises:
      ConfigError: an unknown name, or a value that cannot be.

    Example:
      >>> patient("flowers_fast", network="resnet18", width=64).optimizer.weight_decay
      0.1
    """
    if name not in PATIENCE:
        raise unknown("patience", name, PATIENCE)
    plan = PATIENCE[name]
    crops = "inception_digits" if known_as(data) in DIGITS else "inception"
    usual = dict(
        norm="batch", optimizer="adamw", learning_rate=plan.learning_rate,
        weight_decay=round(plan.decay / plan.learning_rate, 6), clip=1.0,
        schedule="warmup_cosine", warmup=plan.warmup, final_fraction=0.0, epochs=plan.epochs,
        batch_size=plan.batch_size, augmentation=crops, mixup=1.0)
    return protocol(f"patient_{name}", **{**usual, **flat})
