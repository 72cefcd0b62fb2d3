"""Networks trained on real labelled images before a distillation, each with where it started."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.data import Normaliser, gather, normalise, require_on_device
from dd_jax.errors import require_probability, require_whole
from dd_jax.synthetic import targets
from dd_jax.train.batches import random_batches
from dd_jax.train.fit import Take, augmented, fit
from dd_jax.types import Augmentation, Network, PyTree, RealData

_NETWORK, _STEPS = range(2)


def train_supervised(
    network: Network,
    data: RealData,
    *,
    normaliser: Normaliser,
    key: jax.Array,
    steps: int,
    batch_size: int = 128,
    optimizer: optax.GradientTransformation,
    augmentation: Augmentation | None = None,
    mix: float = 0.0,
) -> tuple[PyTree, PyTree]:
    """Trains a new network by cross-entropy on random real batches, and keeps its first variables.

    One compiled loop on the device, which can itself be traced (`jax.jit`, `jax.eval_shape`,
    `jax.lax.map` over keys). Batch normalisation keeps its running statistics.

    Args:
      network: the architecture.
      data: the real set, on the device.
      normaliser: from stored images to model space.
      key: PRNG key of the network and of its batches.
      steps: optimizer steps; an epoch has N / batch_size of them.
      batch_size: images per step, distinct and drawn anew for each; a smaller set goes whole.
      optimizer: of the parameters; a schedule belongs to it.
      augmentation: one draw per image in every step.
      mix: probability that a batch is cut and mixed after it, see `augment.cutmix`.

    Returns:
      (initial variables, trained variables), trees of the same structure.

    Raises:
      ConfigError: a size or a probability that cannot be, or images that are not on the device.

    Example:
      >>> import numpy as np
      >>> import optax
      >>> from dd_jax import data, nets
      >>> real = data.from_arrays(np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)),
      ...                         np.arange(8) % 2)
      >>> initial, trained = train_supervised(
      ...     nets.mlp(real.spec, width=4), real, normaliser=data.standardise(real),
      ...     key=jax.random.key(0), steps=2, batch_size=4, optimizer=optax.sgd(0.01))
      >>> trained["params"]["head"]["kernel"].shape
      (4, 2)
    """
    _check(data, steps, batch_size, mix)

    @jax.jit
    def run(data: RealData, normaliser: Normaliser, key: jax.Array) -> tuple[PyTree, PyTree]:
        initial = network.init(jax.random.fold_in(key, _NETWORK))
        fitted = fit(
            network, initial, take=real_images(data, normaliser),
            batches=random_batches(data.labels.shape[0], batch_size, steps), optimizer=optimizer,
            key=jax.random.fold_in(key, _STEPS), views=augmented(augmentation, mix=mix),
        )
        return initial, fitted.variables

    return run(data, normaliser, key)


def real_images(
    data: RealData, normaliser: Normaliser, *, kind: str = "one_hot", scale: float = 1.0
) -> Take:
    """The `take` of `fit` for a real set.

    Args:
      data: the real set; images that are on the host are fetched from there batch by batch, and are
        not to be an argument of the compiled function.
      normaliser: from stored images to model space.
      kind, scale: of the labels, see `synthetic.targets`.

    Returns:
      rows [B] int32, or None for all -> (images [B, H, W, C] float32, labels [B, K]).
    """
    on_host = isinstance(data.images, np.ndarray)

    def fetched(rows):
        like = jax.ShapeDtypeStruct((*rows.shape, *data.spec.shape), data.images.dtype)
        return jax.pure_callback(lambda at: data.images[np.asarray(at)], like, rows,
                                 vmap_method="expand_dims")

    def take(rows):
        if on_host:
            rows = jnp.arange(len(data.labels)) if rows is None else rows
            images, labels = fetched(rows), data.labels[rows]
        else:
            images, labels = (data.images, data.labels) if rows is None else gather(data, rows)
        return (normalise(normaliser, images),
                targets(labels, data.spec.num_classes, kind=kind, scale=scale))

    return take


def _check(data: RealData, steps: int, batch_size: int, mix: float) -> None:
    require_whole("steps", steps, example=1000)
    require_whole("batch_size", batch_size, example=128)
    require_probability("mix", mix)
    require_on_device(data, "a teacher")
