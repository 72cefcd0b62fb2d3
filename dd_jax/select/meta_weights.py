"""Meta-Weight-Net: a small network that says from an image's loss how much the image counts.

With per-image losses l_i of a batch of B, losses m_j of a meta batch, a rate a and weights
V(l; Theta) = sigmoid(W2 relu(W1 l + b1) + b2), a step from parameters w is

  virtual   w' = w - (a / B) sum_i V(l_i; Theta) grad l_i(w)
  meta      Theta moves along  d/dTheta mean_j m_j(w')
  real      w  <- w - (a / B) sum_i V(l_i; new Theta) grad l_i(w)

where l_i inside V has no derivative. As w' is linear in the weights, the meta gradient is exactly

  d mean_j m_j(w') / dTheta = - (a / B) sum_i <grad l_i(w), G> dV(l_i; Theta) / dTheta,
  G = grad mean_j m_j at w'

and <grad l_i(w), G> for all i together is one forward-mode derivative of the losses along G. So
nothing is differentiated twice, and nothing is kept of the virtual step.

Source: Shu et al., Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting, NeurIPS
2019.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.labels.losses import cross_entropy
from dd_jax.nets import with_batch_stats
from dd_jax.types import Network, PyTree

_HIDDEN, _OUT = range(2)
Batch = tuple[jax.Array, jax.Array]  # images [B, H, W, C] in model space, labels [B, K]


def weight_net(key: jax.Array, width: int = 100) -> PyTree:
    """New parameters Theta of V, each layer uniform within 1 / sqrt(its inputs).

    Args:
      key: PRNG key.
      width: hidden units.

    Example:
      >>> weights_of(weight_net(jax.random.key(0)), jnp.zeros(3)).shape
      (3,)
    """
    def layer(number, inputs, outputs):
        keys, most = jax.random.split(jax.random.fold_in(key, number)), inputs**-0.5
        return {"kernel": jax.random.uniform(keys[0], (inputs, outputs), minval=-most, maxval=most),
                "bias": jax.random.uniform(keys[1], (outputs,), minval=-most, maxval=most)}

    return {"hidden": layer(_HIDDEN, 1, width), "out": layer(_OUT, width, 1)}


def weights_of(theta: PyTree, losses: jax.Array) -> jax.Array:
    """V(l; Theta) of losses [B], each in (0, 1)."""
    hidden = losses[:, None] @ theta["hidden"]["kernel"] + theta["hidden"]["bias"]
    out = jax.nn.relu(hidden) @ theta["out"]["kernel"] + theta["out"]["bias"]
    return jax.nn.sigmoid(out[:, 0])


class Weighing(NamedTuple):
    """A network and the one that weighs its images, in training.

    Attributes:
      variables: of the network.
      theta: of V.
      optimizer: the state of V's optimizer.
    """

    variables: PyTree
    theta: PyTree
    optimizer: PyTree


class MetaWeights(NamedTuple):
    """How a network and the one that weighs its images are trained.

    Attributes:
      network: the architecture.
      rate: a, of the virtual and of the real step.
      optimizer: of Theta.
      batch_size: B, and that of meta batches.
      width: hidden units of V.
    """

    network: Network
    rate: float
    optimizer: optax.GradientTransformation
    batch_size: int = 100
    width: int = 100

    def begin(self, key: jax.Array) -> Weighing:
        """New networks."""
        network_key, weight_key = jax.random.split(key)
        theta = weight_net(weight_key, self.width)
        return Weighing(self.network.init(network_key), theta, self.optimizer.init(theta))

    def losses(self, variables: PyTree, params: PyTree, batch: Batch) -> tuple[jax.Array, PyTree]:
        """(cross-entropies [B] with other parameters, variables with new running statistics)."""
        images, labels = batch
        outputs = self.network.apply({**variables, "params": params}, images, True)
        return cross_entropy(outputs.logits, labels), with_batch_stats(variables, outputs)

    def gradient(
        self, variables: PyTree, batch: Batch, weights: jax.Array
    ) -> tuple[PyTree, PyTree]:
        """(gradient of (1 / B) sum_i weights_i l_i, variables with new running statistics)."""
        def total(params):
            losses, after = self.losses(variables, params, batch)
            return jnp.mean(weights * losses), after

        return jax.grad(total, has_aux=True)(variables["params"])

    def meta_gradient(self, variables: PyTree, theta: PyTree, batch: Batch, meta: Batch) -> PyTree:
        """Gradient in Theta of the mean loss of a meta batch after the virtual step.

        Args:
          variables: of the network, before it.
          theta: of V.
          batch: images that are weighed.
          meta: images that judge.

        Returns:
          Like theta.
        """
        params = variables["params"]

        def of(params, batch):
            return self.losses(variables, params, batch)[0]

        losses = of(params, batch)
        weights, to_theta = jax.vjp(lambda theta: weights_of(theta, losses), theta)
        downhill, _ = self.gradient(variables, batch, weights)
        ahead = jax.tree.map(lambda p, g: p - self.rate * g, params, downhill)
        judged = jax.grad(lambda params: jnp.mean(of(params, meta)))(ahead)
        along = jax.jvp(lambda params: of(params, batch), (params,), (judged,))[1]
        return to_theta(-self.rate / losses.shape[0] * along)[0]

    def step(self, state: Weighing, batch: Batch, meta: Batch) -> Weighing:
        """The networks after one virtual, one meta and one real step."""
        variables, theta, optimizer = state
        gradient = self.meta_gradient(variables, theta, batch, meta)
        updates, optimizer = self.optimizer.update(gradient, optimizer, theta)
        theta = optax.apply_updates(theta, updates)
        params = variables["params"]
        weights = weights_of(theta, self.losses(variables, params, batch)[0])
        downhill, variables = self.gradient(variables, batch, jax.lax.stop_gradient(weights))
        params = jax.tree.map(lambda p, g: p - self.rate * g, params, downhill)
        return Weighing({**variables, "params": params}, theta, optimizer)

    def judged(self, state: Weighing, images: jax.Array, labels: jax.Array) -> Batch:
        """(weights, losses), each [B], of images by the networks as they are, not in training."""
        losses = cross_entropy(self.network.apply(state.variables, images).logits, labels)
        return weights_of(state.theta, losses), losses
