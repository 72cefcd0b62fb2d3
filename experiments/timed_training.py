"""Trainings whose wall time is measured: of all images, of RS2's subsets, of a coreset."""

from __future__ import annotations

import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.data import Normaliser
from dd_jax.evaluate.evaluate import test_accuracy as accuracy_on
from dd_jax.train import Batches, fit, permuted_epochs, real_images, rs2, rs2_steps
from dd_jax.types import Network, PyTree, Split

_INIT, _TRAIN, _SUBSETS = range(3)


class Arm(NamedTuple):
    """A way to train: "full", "rs2_with", "rs2_without" or "coreset", and its share of the set."""

    name: str
    share: float = 1.0

    @property
    def label(self) -> str:
        """For the curve.

        Example:
          >>> Arm("rs2_without", 0.1).label
          'RS2 without replacement, 10 %'
        """
        told = {"full": "all images", "rs2_with": "RS2 with replacement",
                "rs2_without": "RS2 without replacement", "coreset": "coreset"}[self.name]
        return told if self.name == "full" else f"{told}, {100 * self.share:g} %"


class Coreset(NamedTuple):
    """Rows [M] int32 that were chosen, their weights [M], and the seconds that it took."""

    rows: np.ndarray
    weights: np.ndarray
    seconds: float


class Training(NamedTuple):
    """What all trainings have in common.

    Attributes:
      network: the architecture.
      rounds: of each training.
      points: how often accuracy is measured on the way.
      batch_size, rate, decay: of SGD with Nesterov's momentum of 0.9; the rate falls to 0 by a
        cosine over the steps of its own training.
    """

    network: Network
    rounds: int
    points: int
    batch_size: int
    rate: float
    decay: float

    def steps(self, arm: Arm, size: int, count: int) -> int:
        """Steps of a whole training on a set of that size, or on a coreset of `count` images."""
        if arm.name.startswith("rs2"):
            return rs2_steps(size, arm.share, self.batch_size, self.rounds,
                             replace=arm.name == "rs2_with")
        count = size if arm.name == "full" else count
        return self.rounds * -(-count // min(self.batch_size, count))

    def batches(self, arm: Arm, size: int, key: jax.Array, rows: jax.Array) -> Batches:
        """What a training takes in each round; `rows` are the coreset's."""
        if arm.name.startswith("rs2"):
            return rs2(key, size, arm.share, self.batch_size, self.rounds,
                       replace=arm.name == "rs2_with")
        if arm.name == "full":
            return permuted_epochs(size, self.batch_size, self.rounds)
        plain = permuted_epochs(len(rows), self.batch_size, self.rounds)

        def of_coreset(order, key, step):
            places, counted = plain.rows(order, key, step)
            return rows[places], counted

        return plain._replace(rows=of_coreset)

    def optimizer(self, steps: int) -> optax.GradientTransformation:
        """Of a training of so many steps."""
        rate = optax.cosine_decay_schedule(self.rate, steps)
        return optax.chain(optax.add_decayed_weights(self.decay),
                           optax.sgd(rate, momentum=0.9, nesterov=True))


class Trainer:
    """An arm whose training is compiled once for all seeds.

    Attributes:
      seconds: that the compilation took.
      steps: of a whole training.
    """

    def __init__(self, by: Training, arm: Arm, data: Split, normaliser: Normaliser,
                 coreset: Coreset):
        self.by, size = by, len(data.train.labels)
        self.steps = by.steps(arm, size, len(coreset.rows))
        self.optimizer = by.optimizer(self.steps)
        weighted = bool((coreset.weights != 1).any())
        self._held = (data.train, normaliser, *(jnp.asarray(part) for part in coreset[:2]))
        self._accuracy = partial(jax.jit(partial(accuracy_on, by.network)), test=data.test,
                                 normaliser=normaliser)

        def run(held, trained, key, first, count):
            data, normaliser, rows, weights = held
            every = jnp.zeros((size,), jnp.float32).at[rows].set(weights) if weighted else None
            batches = by.batches(arm, size, jax.random.fold_in(key, _SUBSETS), rows)
            fitted = fit(by.network, trained[0], state=trained[1], first=first,
                         take=real_images(data, normaliser), weights=every,
                         batches=batches._replace(epochs=count), optimizer=self.optimizer,
                         key=jax.random.fold_in(key, _TRAIN))
            return fitted.variables, fitted.optimizer

        start, key, number = time.perf_counter(), jax.random.key(0), jnp.int32(0)
        self._run = jax.jit(run).lower(self._held, self._begin(key), key, number, number).compile()
        self.seconds = time.perf_counter() - start

    def _begin(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        variables = self.by.network.init(jax.random.fold_in(key, _INIT))
        return variables, self.optimizer.init(variables["params"])

    def measured(self, seed: int) -> dict[str, list[float]]:
        """Trains one network; the clock stands still while it is tested.

        Args:
          seed: of the network and of all that it takes.

        Returns:
          "rounds_done", and "seconds" and "accuracies" after them, plain values.
        """
        key, spent, done = jax.random.key(seed), 0.0, 0
        trained = jax.block_until_ready(self._begin(key))
        found = {"rounds_done": [], "seconds": [], "accuracies": []}
        for point in range(1, self.by.points + 1):
            until = self.by.rounds * point // self.by.points
            if until == done:
                continue
            start = time.perf_counter()
            trained = jax.block_until_ready(self._run(
                self._held, trained, key, jnp.int32(done), jnp.int32(until - done)))
            spent, done = spent + time.perf_counter() - start, until
            found["rounds_done"].append(done)
            found["seconds"].append(round(spent, 3))
            found["accuracies"].append(float(self._accuracy(trained[0])))
        return found
