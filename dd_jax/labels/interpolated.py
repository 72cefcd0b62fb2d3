"""One stored label for each image, interpolated as images are mixed: labels in almost no bytes.

The label of image i is z_i, the mean of the teachers' logits of the image as it is stored. A view
is the image augmented and blended by Mixup with that of image j, and its label (1 - a) z_i + a z_j
with the same a; the student is told softmax(label / T) at temperature T, without a factor T^2.

Source: Zhang et al., Breaking Class Barriers: Efficient Dataset Distillation via Inter-Class
Feature Compensator (INFER), ICLR 2025, the static labels; its images are no part of this.
Published: crops of 4 padded pixels and mirrors, Mixup(0.8), T = 30.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dd_jax.augment.mixing import mixing as mixing_by_name
from dd_jax.errors import ConfigError, require_above_zero
from dd_jax.labels.live import look
from dd_jax.labels.losses import Loss, cross_entropy, require_loss
from dd_jax.labels.supervision import Supervision, Views, tempered
from dd_jax.types import Augmentation, Network, PyTree


def mean_logits(
    teachers: Sequence[tuple[Network, PyTree]], images: jax.Array
) -> jax.Array:
    """[M, K], the mean of several teachers' logits of images [M, H, W, C] as they are.

    Batch normalisation takes its running statistics.

    Raises:
      ConfigError: no teacher, or teachers of different classes.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> pair = network, network.init(jax.random.key(0))
      >>> mean_logits([pair, pair], jnp.ones((3, 2, 2, 1))).shape
      (3, 2)
    """
    found = [look(network, variables, images) for network, variables in teachers]
    if len({z.shape[-1] for z in found}) != 1:
        raise ConfigError(f"teachers have {[z.shape[-1] for z in found]} classes, expected those "
                          "of one data set", fix="pass one teacher or more, all of the same data")
    return sum(found) / len(found)


def mixed(augmentation: Augmentation | None = None, *, mixing: str = "mixup@0.8") -> Callable:
    """The views of `fit`: one draw of the augmentation for each image, then a mixing by its name.

    Labels [B, K] are mixed by the same numbers, whatever they are: logits, too.

    Args:
      augmentation: None for none.
      mixing: as `augment.mixing` reads it.

    Returns:
      (key, images [B, H, W, C], labels [B, K]) -> (images, labels).

    Raises:
      ConfigError: an unknown mixing; where it is used, labels that are whole numbers.

    Example:
      >>> views = mixed(mixing="mixup@1")
      >>> images, labels = views(jax.random.key(0), jnp.zeros((4, 2, 2, 1)), 5 * jnp.eye(4))
      >>> labels.sum(axis=1).round(4).tolist()
      [5.0, 5.0, 5.0, 5.0]
    """
    by = mixing_by_name(mixing)

    def views(key, images, labels):
        draw_key, mix_key = jax.random.split(key)
        if jnp.issubdtype(labels.dtype, jnp.integer):
            raise ConfigError("labels that are mixed are whole numbers",
                              fix="pass labels [B, K]")
        if augmentation is not None:
            images = augmentation.apply(augmentation.draw(draw_key, images.shape[0]), images)
        return by.apply(by.draw(mix_key, images.shape[0], images.shape[1:]), images, labels)

    return views


def interpolated(*, temperature: float = 30.0, loss: Loss = cross_entropy) -> Supervision:
    """The set's labels are logits, mixed as the images are: targets are softmax(label / T).

    Args:
      temperature: T, of labels and of the student's logits.
      loss: (student's logits / T, targets [B, K]) -> [B].

    Returns:
      A `Supervision`, for a `take` whose labels are `mean_logits` (or what a codec left of them)
      and views by `mixed`.

    Raises:
      ConfigError: a temperature that cannot be, a loss that is no function.

    Example:
      >>> views = Views(None, jnp.array([[0.0, 30.0]]), None, None, None)
      >>> interpolated().targets((), views).round(2).tolist()
      [[0.2..., 0.7...]]
    """
    require_above_zero("temperature", temperature, why="logits are divided by it", example=30.0)
    require_loss(loss)
    return Supervision(_Softened(float(temperature)), tempered(loss, float(temperature)))


@dataclasses.dataclass(frozen=True)
class _Softened:
    temperature: float

    def __call__(self, arrays: PyTree, views: Views) -> jax.Array:
        return jax.nn.softmax(views.labels / self.temperature)
