"""The training of one expert, and its parameters as one flat vector after every epoch.

Source: GeorgeCazenavette/mtt-distillation; Cazenavette et al., Dataset Distillation by Matching
Training Trajectories, CVPR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from dd_jax.data import Normaliser, require_on_device
from dd_jax.errors import ConfigError, require_at_least_zero, require_whole
from dd_jax.train.batches import Batches, permuted_epochs
from dd_jax.train.built import require_built
from dd_jax.train.expert_rules import ExpertRule
from dd_jax.train.fit import Fitted, augmented, fit
from dd_jax.train.teachers import real_images
from dd_jax.transforms import restarted_at
from dd_jax.types import Augmentation, Network, PyTree, RealData

_NETWORK, _EPOCH = range(2)


def flat_layout(params: PyTree) -> list[tuple[str, tuple[int, ...]]]:
    """The leaves of a parameter tree in the order in which a trajectory holds them.

    Args:
      params: a tree of arrays, or of their shapes (`jax.eval_shape`).

    Returns:
      [(name, shape), ...]; the name is the path with slashes.

    Example:
      >>> flat_layout({"b": np.zeros(3), "a": {"kernel": np.zeros((2, 3))}})
      [('a/kernel', (2, 3)), ('b', (3,))]
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), tuple(np.shape(leaf)))
            for path, leaf in leaves]


def unflatten(like: PyTree) -> Callable[[jax.Array], PyTree]:
    """The way back from a row of a trajectory to a tree; pure, for use inside jit.

    Args:
      like: a tree of arrays or of their shapes.

    Returns:
      flat [P] -> tree like `like`, in the dtype of `flat`. It raises ConfigError for another P.

    Example:
      >>> unflatten({"w": np.zeros((1, 2))})(np.arange(2.0))["w"].tolist()
      [[0.0, 1.0]]
    """
    leaves, treedef = jax.tree.flatten(like)
    shapes = [tuple(np.shape(leaf)) for leaf in leaves]
    ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()

    def restore(flat: jax.Array) -> PyTree:
        if np.shape(flat) != (ends[-1],):
            raise ConfigError(f"the flat parameters have shape {np.shape(flat)}, expected "
                              f"({ends[-1]},)", fix="use the network that the experts were")
        parts = [flat[end - math.prod(shape):end].reshape(shape)
                 for shape, end in zip(shapes, ends)]
        return jax.tree.unflatten(treedef, parts)

    return restore


def train_expert(
    network: Network,
    data: RealData,
    *,
    normaliser: Normaliser,
    key: jax.Array,
    epochs: int,
    batch_size: int = 256,
    learning_rate: float | Sequence[float] = 0.01,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    restart: int | None = None,
    augmentation: Augmentation | None = None,
    rule: ExpertRule | None = None,
    start: PyTree | None = None,
) -> jax.Array:
    """Trains a network on the real set and returns its parameters before and after every epoch.

    Every epoch is one pass in a new order. With d = g + weight_decay theta,

      u <- momentum u + d,   theta <- theta - learning_rate[epoch] u.

    One compiled loop on the device, which can itself be traced (`jax.jit`, `backend.map_over`
    keys).

    Args:
      network: the architecture, without running statistics: a trajectory is parameters alone.
      data: the real set, on the device.
      normaliser: from stored images to model space.
      key: PRNG key of the initial network, of the orders and of the augmentation.
      epochs: E.
      batch_size: images per step; the rest of a pass is a smaller last step.
      learning_rate: one number, or one for each epoch.
      momentum, weight_decay: as above.
      restart: epoch, from 0, that begins without momentum, u = 0; None for none.
      augmentation: one draw per image in every step.
      rule: the gradient g; None is that of the mean cross-entropy.
      start: parameters to begin from, in place of a new network's.

    Returns:
      [E + 1, P] float32; row 0 is the start, and `unflatten` brings a row back.

    Raises:
      ConfigError: a setting that cannot be, running statistics, or images not on the device.

    Example:
      >>> from dd_jax import data, nets
      >>> real = data.from_arrays(np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)),
      ...                         np.arange(8) % 2)
      >>> network = nets.mlp(real.spec, width=4, depth=2)
      >>> train_expert(network, real, normaliser=data.standardise(real), key=jax.random.key(0),
      ...              epochs=2, batch_size=4).shape
      (3, 270)
    """
    check_training(network, data, epochs=epochs, batch_size=batch_size, momentum=momentum,
                   learning_rate=learning_rate, weight_decay=weight_decay, restart=restart,
                   augmentation=augmentation, rule=rule, start=start)
    training = expert_training(
        network, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        momentum=momentum, weight_decay=weight_decay, restart=restart, augmentation=augmentation,
        rule=rule)

    @jax.jit
    def run(data: RealData, normaliser: Normaliser, key: jax.Array, start: PyTree) -> jax.Array:
        begun = training.begin(data, key, start)
        rows = training.go_on(data, normaliser, key, begun, 0, epochs, watch=training.flat).watched
        return jnp.concatenate([training.flat(begun.variables)[None], rows])

    return run(data, normaliser, key, start)


class ExpertTraining(NamedTuple):
    """The training of an expert in pieces; the same bits for any pieces whose counts are traced.

    Attributes:
      begin: (data, key, start) -> the network before its first epoch, a `Fitted`; a new network
        where `start` is None.
      go_on: (data, normaliser, key, fitted, first, count, watch=None) -> the network `count` epochs
        later, of which the next is number `first`; both [] int32 and traced, or plain numbers.
      flat: (variables) -> parameters [P].
    """

    begin: Callable[..., Fitted]
    go_on: Callable[..., Fitted]
    flat: Callable[[PyTree], jax.Array]


def expert_training(
    network: Network,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float | Sequence[float],
    momentum: float,
    weight_decay: float,
    restart: int | None,
    augmentation: Augmentation | None,
    rule: ExpertRule | None,
) -> ExpertTraining:
    """What `train_expert` does with the same arguments, as functions to be traced."""
    rates = np.broadcast_to(np.asarray(learning_rate, np.float32), (epochs,))

    def optimizer(steps: int) -> optax.GradientTransformation:
        velocity = optax.trace(momentum) if momentum else optax.identity()
        if restart is not None:
            velocity = restarted_at(velocity, restart * steps)
        return optax.chain(
            optax.add_decayed_weights(weight_decay), velocity,
            optax.scale_by_learning_rate(lambda step: jnp.asarray(rates)[step // steps]))

    def flat(variables: PyTree) -> jax.Array:
        return ravel_pytree(variables["params"])[0]

    def batches(data: RealData, count: int | jax.Array) -> Batches:
        return permuted_epochs(data.labels.shape[0], batch_size, count)

    def begin(data: RealData, key: jax.Array, start: PyTree | None = None) -> Fitted:
        if start is None:
            start = network.init(jax.random.fold_in(key, _NETWORK))["params"]
        variables = {"params": jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), start)}
        state = optimizer(batches(data, 1).steps).init(variables["params"])
        return Fitted(variables, state, jnp.zeros((), jnp.float32))

    def go_on(data, normaliser, key, fitted: Fitted, first, count, watch=None) -> Fitted:
        taken = batches(data, count)
        return fit(
            network, fitted.variables, take=real_images(data, normaliser), batches=taken,
            optimizer=optimizer(taken.steps), key=jax.random.fold_in(key, _EPOCH), first=first,
            state=fitted.optimizer, views=augmented(augmentation), watch=watch,
            gradient=rule and rule.gradient,
        )

    return ExpertTraining(begin, go_on, flat)


def check_training(
    network: Network,
    data: RealData,
    *,
    epochs: int,
    batch_size: int = 256,
    learning_rate: float | Sequence[float] = 0.01,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    restart: int | None = None,
    augmentation: Augmentation | None = None,
    rule: ExpertRule | None = None,
    start: PyTree | None = None,
) -> None:
    """Refuses what `train_expert` cannot do, before anything is traced.

    Raises:
      ConfigError: as said there.
    """
    require_whole("epochs", epochs, example=50)
    require_whole("batch_size", batch_size, example=256)
    several = isinstance(learning_rate, (Sequence, np.ndarray))
    if several and len(learning_rate) != epochs:
        raise ConfigError(f"learning_rate has {len(learning_rate)} numbers, expected one for each "
                          f"of {epochs} epochs", fix="pass one number, or as many as epochs")
    for rate in learning_rate if several else [learning_rate]:
        require_at_least_zero("learning_rate", rate, example=0.01)
    require_at_least_zero("momentum", momentum, example=0.9)
    require_at_least_zero("weight_decay", weight_decay, example=1e-3)
    require_whole("restart", 0 if restart is None else restart, least=0, example=27)
    for name, value, kind in (("augmentation", augmentation, Augmentation),
                              ("rule", rule, ExpertRule)):
        require_built(name, value, kind, optional=True)
    require_on_device(data, "an expert")
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0)))
    if set(variables) != {"params"}:
        odd = ", ".join(sorted(set(variables) - {"params"}))
        raise ConfigError(f"the network {network.name!r} keeps {odd} beside its parameters, which "
                          "a trajectory does not hold", fix='pass norm="instance"')
    if start is not None and flat_layout(start) != flat_layout(variables["params"]):
        raise ConfigError(f"start is not the parameters of the network {network.name!r}",
                          fix='pass the "params" of such a network, without a leading axis')
