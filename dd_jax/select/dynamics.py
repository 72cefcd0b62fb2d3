"""Training dynamics: what networks say of every real image after each epoch of their training.

  loss = -log p_y     error = | p - y |     gradient = | p - y | sqrt(1 + | h |^2)

with the class probabilities p, the one-hot label y and the last layer's input h; the last is the
norm of the gradient in that layer's weights and biases, and may be that in all parameters instead.
Recorded once for several networks, shared by all scores. Images are not augmented there, and
networks are in evaluation mode.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.backend import chunk_size, in_chunks, map_over, own_dtypes
from dd_jax.data import Normaliser, as_index
from dd_jax.errors import unknown
from dd_jax.select.looks import look_at
from dd_jax.train import augmented, fit, permuted_epochs, real_images
from dd_jax.types import Augmentation, Network, Outputs, PyTree, RealData

GRADIENTS = ("last_layer", "all")
MOST_NUMBERS = 2**26  # of the gradients of a chunk of images


class Dynamics(NamedTuple):
    """Of S networks after each of E epochs, of N images; arrays [S, E, N], or [..., b] of some.

    Attributes:
      loss: -log of the label's probability, float32.
      correct: whether the label is the most probable class, bool.
      largest: probability of the most probable class.
      margin: the same less that of the second.
      entropy: of the class probabilities, in nats.
      error: |p - y|, the score of EL2N.
      gradient: |p - y| sqrt(1 + |h|^2), the score of GraNd in the last layer; or in all of them,
        see `Recording`.
    """

    loss: Any
    correct: Any
    largest: Any
    margin: Any
    entropy: Any
    error: Any
    gradient: Any


class Trained(NamedTuple):
    """Networks in training, every leaf [S, ...].

    Attributes:
      variables: of the networks.
      optimizer: states of their optimizers.
    """

    variables: PyTree
    optimizer: PyTree


def measured(outputs: Outputs, labels: jax.Array) -> Dynamics:
    """What is recorded of a batch.

    Args:
      outputs: of a network, logits [b, K] of at least two classes and features [b, P].
      labels: [b] int32.

    Example:
      >>> found = measured(Outputs(jnp.zeros((1, 2)), jnp.ones((1, 3))), jnp.array([1]))
      >>> round(float(found.error[0]), 3), round(float(found.gradient[0]), 3)
      (0.707, 1.414)
    """
    logs = jax.nn.log_softmax(outputs.logits.astype(jnp.float32))
    shares = jnp.exp(logs)
    two = jax.lax.top_k(shares, 2)[0]
    error = jnp.linalg.norm(shares - jax.nn.one_hot(labels, logs.shape[1]), axis=1)
    return Dynamics(
        loss=-jnp.take_along_axis(logs, labels[:, None], axis=1)[:, 0],
        correct=jnp.argmax(logs, axis=1) == labels,
        largest=two[:, 0],
        margin=two[:, 0] - two[:, 1],
        entropy=-jnp.sum(jnp.where(shares > 0, shares * logs, 0), axis=1),
        error=error,
        gradient=error * jnp.sqrt(1 + jnp.sum(outputs.features**2, axis=1)),
    )


def gradient_norms(
    network: Network, variables: PyTree, images: jax.Array, labels: jax.Array
) -> jax.Array:
    """[b], the norm of each image's gradient in all parameters, a few images at a time.

    Args:
      network: the architecture.
      variables: of the network, in evaluation mode.
      images: [b, H, W, C] in model space.
      labels: [b] int32.
    """
    def loss(params, image, label):
        outputs = network.apply({**variables, "params": params}, image[None])
        return -jax.nn.log_softmax(outputs.logits[0].astype(jnp.float32))[label]

    def norms(part):
        found = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(variables["params"], *part)
        return jnp.sqrt(sum(jnp.sum(leaf**2, axis=range(1, leaf.ndim))
                            for leaf in jax.tree.leaves(found)))

    size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    size = max(1, min(chunk_size(len(labels)), MOST_NUMBERS // size))
    return in_chunks(norms, (images, labels), size=size)


class Recording(NamedTuple):
    """How networks are trained whose dynamics are recorded.

    Attributes:
      network: the architecture.
      optimizer: of each; a schedule counts steps over all epochs.
      batch_size: images per step.
      augmentation: of the training, one draw per image; None for none.
      gradient: in which parameters its norm is recorded, a name in `GRADIENTS`.
      block: images that are looked at together; None: see `looks.block_rows`.
    """

    network: Network
    optimizer: optax.GradientTransformation
    batch_size: int
    augmentation: Augmentation | None = None
    gradient: str = "last_layer"
    block: int | None = None

    def begin(self, keys: jax.Array) -> Trained:
        """New networks, one for each of the keys [S]."""
        variables = jax.vmap(self.network.init)(keys)
        return Trained(variables, jax.vmap(self.optimizer.init)(variables["params"]))

    def trainer(self, data: RealData, normaliser: Normaliser):
        """(trained, keys [S], epoch) -> networks after one more epoch; compiled once.

        Network i takes every image once, in an order drawn from fold_in(keys[i], epoch + 1).
        """
        on_host = not isinstance(data.images, jax.Array)
        views = augmented(self.augmentation)

        @jax.jit
        def of(held, normaliser, trained, keys, epoch):
            def one(args):
                (variables, optimizer), key = args
                fitted = fit(
                    self.network, variables, state=optimizer,
                    take=real_images(data if on_host else held, normaliser),
                    batches=permuted_epochs(len(data.labels), self.batch_size, 1),
                    optimizer=self.optimizer, key=jax.random.fold_in(key, epoch + 1), views=views)
                return Trained(fitted.variables, fitted.optimizer)

            return map_over(one, (trained, keys))

        held = as_index(data) if on_host else data
        return own_dtypes()(lambda trained, keys, epoch: of(held, normaliser, trained, keys,
                                                            jnp.int32(epoch)))

    def train(
        self, data: RealData, normaliser: Normaliser, key: jax.Array, epochs: int
    ) -> PyTree:
        """The variables of one network that was trained for so many epochs."""
        trained, train = self.begin(key[None]), self.trainer(data, normaliser)
        for epoch in range(epochs):
            trained = train(trained, key[None], epoch)
        return jax.tree.map(lambda x: x[0], trained.variables)

    def look(self, trained: Trained, data: RealData, normaliser: Normaliser) -> Dynamics:
        """`Dynamics` [S, N] of networks as they are now; NumPy.

        Raises:
          ConfigError: an unknown gradient.
        """
        if self.gradient not in GRADIENTS:
            raise unknown("gradient", self.gradient, GRADIENTS)
        return look_at(self._look, trained.variables, data, normaliser, axis=1, block=self.block)

    def _look(self, variables: PyTree, images: jax.Array, labels: jax.Array) -> Dynamics:
        def one(variables):
            seen = in_chunks(lambda part: measured(
                self.network.apply(variables, part[0]), part[1]), (images, labels))
            if self.gradient == "last_layer":
                return seen
            return seen._replace(gradient=gradient_norms(self.network, variables, images, labels))

        return map_over(one, variables)
