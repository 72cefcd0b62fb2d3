"""One step of training a network on a synthetic set, for `unroll`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError
from dd_jax.labels.losses import Loss, cross_entropy, require_loss
from dd_jax.train.adjoints import Step
from dd_jax.train.supervised import batch_gradient
from dd_jax.types import Augmentation, Network, PyTree, SyntheticSet


class StepInput(NamedTuple):
    """What tells one step from the others; `unroll` takes it stacked along a leading axis N.

    Attributes:
      rows: [B] int32, the images of this step's batch; None for the whole set in its order.
      key: [] typed PRNG key of its augmentation; None where there is none.
      active: [] bool or float, 0 where the step changes nothing; None for a step that counts.
      position: [] int32, which of the rates [T] is its own; None where the set has one rate.
    """

    rows: jax.Array | None = None
    key: jax.Array | None = None
    active: jax.Array | None = None
    position: jax.Array | None = None


def start(params: PyTree, optimizer: optax.GradientTransformation) -> tuple[PyTree, PyTree]:
    """The carry with which training begins: (parameters, state of the optimizer)."""
    return params, optimizer.init(params)


def training_step(
    network: Network,
    *,
    optimizer: optax.GradientTransformation | None = None,
    augmentation: Augmentation | None = None,
    shared_draw: bool = False,
    loss: Loss = cross_entropy,
    rematerialise: bool = True,
) -> Step:
    """One step of gradient descent on a batch of the synthetic set, differentiable in the set.

    With g the gradient of the mean loss of the batch at the parameters p, u the optimizer and r the
    set's learning rate: (d, state) <- u(g, state), p <- p - r d.

    Args:
      network: the architecture. Batch normalisation takes the statistics of each batch; running
        ones are not kept, so apply the trained network with train=True.
      optimizer: from gradients to directions of unit rate *with the sign of the gradient*:
        `optax.identity()` (the default) is gradient descent, `optax.trace(0.9)` heavy ball
        b <- 0.9 b + g, `optax.scale_by_adam(eps_root=1e-8)` Adam, whose derivative is not finite
        at a zero gradient without eps_root. `optax.sgd` and others with a rate point downwards.
      augmentation: one draw per image with the step's key.
      shared_draw: one draw for the whole batch instead.
      loss: (logits [B, K], labels) -> [B], such as those in `labels.losses`.
      rematerialise: whether the derivative keeps the graph of one chunk of about 16 images and
        runs the others again; only a CPU cuts batches in chunks.

    Returns:
      step(carry, x, shared) -> carry for `unroll`: carry is (params, state of the optimizer), as
      `start` makes it, x a `StepInput`, shared a `SyntheticSet` whose learning_rate is [], or [T]
      and indexed by x.position.

    Raises:
      ConfigError: a loss that is no function, or a network with variables that a step cannot make
        up; when the step is traced, a set without a rate or a step without the key or position that
        it needs.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.train.unroll import unroll
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> params = network.init(jax.random.key(0))["params"]
      >>> synthetic = SyntheticSet(jnp.ones((2, 2, 2, 1)), jnp.eye(2), jnp.float32(0.1))
      >>> inputs = StepInput(rows=jnp.array([[0], [1], [0]]))
      >>> carry = start(params, optax.identity())
      >>> trained, _ = unroll(training_step(network), carry, inputs, synthetic)
      >>> trained["head"]["kernel"].shape
      (4, 2)
    """
    require_loss(loss)
    optimizer = optax.identity() if optimizer is None else optimizer
    running = _running_statistics(network)

    def step(carry, x, shared):
        params, state = carry
        # Also plain arrays and numbers: a traced index needs an array of JAX.
        shared = jax.tree.map(jnp.asarray, shared)
        images, labels = shared.images, shared.labels
        if x.rows is not None:
            images, labels = images[x.rows], labels[x.rows]
        if augmentation is not None:
            if x.key is None:
                raise ConfigError("the steps have an augmentation and no keys",
                                  fix="pass StepInput(key=jax.random.split(key, N))")
            count = 1 if shared_draw else images.shape[0]
            images = augmentation.apply(augmentation.draw(x.key, count), images)
        unused = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), running)
        variables = {"params": params, **unused}
        gradient, _ = batch_gradient(network, variables, images, labels, loss=loss, train=True,
                                     rematerialise=rematerialise)
        direction, state = optimizer.update(gradient, state, params)
        rate = _rate(shared, x.position)
        params = jax.tree.map(lambda p, d: (p - rate * d).astype(p.dtype), params, direction)
        if x.active is None:
            return params, state
        return jax.tree.map(lambda new, old: jnp.where(x.active != 0, new, old),
                            (params, state), carry)

    return step


def _running_statistics(network: Network) -> PyTree:
    """Their shapes: they are not used in training, but a network asks that there be some."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0)))
    others = {name: part for name, part in shapes.items() if name != "params"}
    if set(others) - {"batch_stats"}:
        raise ConfigError(f"network {network.name!r} has variables {sorted(shapes)}, expected "
                          "params and perhaps batch_stats",
                          fix="close over the others in the network's apply")
    return others


def _rate(synthetic: SyntheticSet, position: jax.Array | None) -> jax.Array:
    rate = synthetic.learning_rate
    if rate is None or rate.ndim > 1:
        found = "None" if rate is None else f"of shape {rate.shape}"
        raise ConfigError(f"the set's learning_rate is {found}, expected [] or [T]",
                          fix="pass synthetic._replace(learning_rate=0.01)")
    if rate.ndim and position is None:
        raise ConfigError(f"the set has {rate.shape[0]} learning rates and the steps no position",
                          fix="pass StepInput(position=jnp.arange(N))")
    return rate[position] if rate.ndim else rate
