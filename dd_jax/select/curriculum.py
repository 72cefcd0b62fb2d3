"""From coarse to fine: real images that a network trained on the set so far gets wrong.

  S = the distilled images
  round by round:   g trained on S,   C = {teacher right, g wrong, not in S}
                    of each class the n easiest of C join S

Source: Chen et al., Curriculum Coarse-to-Fine Selection for High-IPC Dataset Distillation, CVPR
2025.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.data import Normaliser, gather, normalise
from dd_jax.errors import require_whole
from dd_jax.labels import own_labels, teacher
from dd_jax.labels.losses import named
from dd_jax.select.looks import block_rows
from dd_jax.synthetic import targets
from dd_jax.train import augmented, fit, permuted_epochs, rows_of
from dd_jax.train.fit import Take
from dd_jax.types import Augmentation, Network, PyTree, RealData

NONE = -1
_NETWORK, _STEPS = range(2)
_BATCHES = ((0.1, 32), (0.2, 64))  # below this share of the real images; 128 from there


def round_sizes(count: int, rounds: int) -> list[int]:
    """Images per class that each round adds, as even as can be; earlier rounds take what is over.

    Rounds that would add nothing are left out.

    Raises:
      ConfigError: no round.

    Example:
      >>> round_sizes(8, 3), round_sizes(2, 3), round_sizes(0, 3)
      ([3, 3, 2], [1, 1], [])
    """
    require_whole("rounds", rounds, example=3)
    each, over = divmod(count, rounds)
    return [size for i in range(rounds) if (size := each + (i < over))]


def easiest(
    able: np.ndarray, difficulty: np.ndarray, classes: Sequence[np.ndarray], count: int
) -> np.ndarray:
    """Of each class the images of least difficulty that are able, the easiest first.

    Args:
      able: [N] bool.
      difficulty: [N].
      classes: rows of each class, ascending.
      count: of each class.

    Returns:
      [K, count] int32 rows; -1 where a class has too few. Of equally difficult ones the first.

    Example:
      >>> easiest(np.array([1, 1, 0, 1], bool), np.array([2, 1, 0, 5]),
      ...         [np.array([0, 1, 2]), np.array([3])], 2).tolist()
      [[1, 0], [3, -1]]
    """
    found = np.full((len(classes), count), NONE, np.int32)
    for own, rows in zip(found, classes):
        rows = rows[able[rows]]
        rows = rows[np.argsort(difficulty[rows], kind="stable")][:count]
        own[: len(rows)] = rows
    return found


def batch_size_of(images: int, real: int) -> int:
    """Images per step for a set of so many, beside so many real ones.

    Example:
      >>> [batch_size_of(images, 50_000) for images in (2500, 5000, 15_000)]
      [32, 64, 128]
    """
    return next((size for share, size in _BATCHES if images < share * real), 128)


def warmed_up(rate: float, decay: float, epochs: int) -> Callable[[int, int], Callable]:
    """(steps of all epochs, of one) -> SGD with momentum: the rate rises linearly from a hundredth
    of it for some epochs, then falls to 0 by a cosine.

    Args:
      rate: the largest.
      decay: of weights.
      epochs: of the rise; less where there are fewer than twice as many.
    """
    def optimizer(steps: int, each: int) -> optax.GradientTransformation:
        schedule = optax.warmup_cosine_decay_schedule(
            rate / 100, rate, min(epochs * each, max(1, steps // 2)), max(2, steps))
        return optax.chain(optax.add_decayed_weights(decay), optax.sgd(schedule, momentum=0.9))

    return optimizer


class Filter(NamedTuple):
    """How the network is trained that looks for what the set does not teach yet.

    Attributes:
      network: the architecture, the teacher's as well.
      optimizer: (steps of all epochs, of one) -> its optimizer.
      epochs: of each training.
      batch_size: images in the set -> images per step.
      augmentation: one draw for each image.
      temperature: of the teacher's and its own probabilities, whose cross-entropy times its square
        it learns; None: it learns the set's labels.
    """

    network: Network
    optimizer: Callable[[int, int], optax.GradientTransformation]
    epochs: int
    batch_size: Callable[[int], int]
    augmentation: Augmentation | None = None
    temperature: float | None = None

    def train(
        self, images: jax.Array, labels: jax.Array, classes: int, by: PyTree, key: jax.Array
    ) -> PyTree:
        """The variables of a new network that was trained on a set.

        Args:
          images: [M, H, W, C] float32 in model space; NumPy ones are fetched batch by batch.
          labels: [M] int32.
          classes: K.
          by: the teacher's variables.
          key: PRNG key.
        """
        batches = permuted_epochs(len(images), self.batch_size(len(images)), self.epochs)
        optimizer = self.optimizer(self.epochs * batches.steps, batches.steps)
        told = own_labels()
        if self.temperature is not None:
            told = teacher(self.network, by, loss=named("kl", temperature=self.temperature))

        on_host = isinstance(images, np.ndarray)

        @jax.jit
        def run(held, labels, told, key):
            labels = targets(labels, classes, kind="one_hot")
            take = fetched_rows(images, labels) if on_host else rows_of(held, labels)
            return fit(
                self.network, self.network.init(jax.random.fold_in(key, _NETWORK)), take=take,
                batches=batches, optimizer=optimizer, key=jax.random.fold_in(key, _STEPS),
                supervision=told, views=augmented(self.augmentation)).variables

        return run(None if on_host else images, jnp.asarray(labels), told, key)


def fetched_rows(images: np.ndarray, labels: jax.Array) -> Take:
    """The `take` of `fit` for images that stay on the host, and are no argument of the program.

    Args:
      images: [M, H, W, C] float32 in model space.
      labels: [M, K] on the device.
    """
    def take(rows):
        like = jax.ShapeDtypeStruct((*rows.shape, *images.shape[1:]), images.dtype)
        some = jax.pure_callback(lambda at: images[np.asarray(at)], like, rows,
                                 vmap_method="expand_dims")
        return some, labels[rows]

    return take


def in_model_space(data: RealData, rows: np.ndarray, normaliser: Normaliser) -> Any:
    """Images at these rows, [n, H, W, C] float32; of a set on the host NumPy, block by block."""
    if not isinstance(data.images, np.ndarray):
        return normalise(normaliser, gather(data, rows)[0])
    block = block_rows(data)
    parts = [np.asarray(normalise(normaliser, gather(data, rows[start : start + block])[0]))
             for start in range(0, len(rows), block)]
    return np.concatenate([np.zeros((0, *data.spec.shape), np.float32), *parts])
