"""The one loop that trains a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.augment import cutmix, mixup
from dd_jax.errors import ConfigError
from dd_jax.labels.supervision import Supervision, Views, own_labels
from dd_jax.train.batches import Batches
from dd_jax.train.supervised import measured_gradient
from dd_jax.types import Augmentation, Network, PyTree

_ORDER, _STEP = range(2)
_ROWS, _VIEWS, _TARGETS = range(3)
Take = Callable[["jax.Array | None"], tuple[jax.Array, PyTree]]


class Fitted(NamedTuple):
    """A trained network.

    Attributes:
      variables: of the network.
      optimizer: the state of its optimizer.
      measured: [] what `measure` gave, summed over all images of all steps by their weight.
      watched: what `watch` gave after each epoch, stacked to [epochs, ...]; None without one.
    """

    variables: PyTree
    optimizer: PyTree
    measured: jax.Array
    watched: PyTree = None


def rows_of(images: PyTree, labels: PyTree) -> Take:
    """The `take` of `fit` for a set that is held as arrays.

    Example:
      >>> rows_of(jnp.arange(3.0), jnp.arange(3))(jnp.array([2]))[0].tolist()
      [2.0]
    """
    whole = jax.tree.map(jnp.asarray, (images, labels))

    def take(rows):
        return whole if rows is None else jax.tree.map(lambda x: x[rows], whole)

    return take


def augmented(
    augmentation: Augmentation | None = None, *, mix: float = 0.0, blend: float = 0.0
) -> Callable | None:
    """The views of `fit`: one draw of the augmentation for each image, then CutMix or mixup.

    Args:
      augmentation: None for none.
      mix: probability that a batch is cut and mixed, see `augment.cutmix`; labels have to be
        [B, K] for it.
      blend: the same of mixup, see `augment.mixup`; not both.

    Returns:
      (key, images [B, H, W, C], labels) -> (images, labels); None where there is neither.

    Raises:
      ConfigError: CutMix and mixup together; where it is used, integer labels that are to be mixed.

    Example:
      >>> augmented() is None
      True
    """
    if mix and blend:
        raise ConfigError(f"CutMix is {mix} and mixup {blend}, expected one of them",
                          fix="pass 0.0 for the other")
    if augmentation is None and not (mix or blend):
        return None
    mixed, probability = (cutmix, mix) if mix else (mixup, blend)

    def views(key, images, labels):
        draw_key, mix_key = jax.random.split(key)
        if augmentation is not None:
            draw = augmentation.draw(draw_key, images.shape[0])
            images = augmentation.apply(draw, images)
        if probability:
            if jnp.issubdtype(labels.dtype, jnp.integer):
                raise ConfigError("CutMix and mixup mix labels, and these are integers",
                                  fix="pass labels [B, K], or mix=0.0")
            images, labels = mixed(images, labels, mix_key, probability=probability)
        return images, labels

    return views


def fit(
    network: Network,
    variables: PyTree,
    *,
    take: Take,
    batches: Batches,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    state: PyTree | None = None,
    first: int | jax.Array = 0,
    views: Callable | None = None,
    supervision: Supervision | None = None,
    weights: jax.Array | None = None,
    gradient: Callable | None = None,
    measure: Callable | None = None,
    watch: Callable[[PyTree], PyTree] | None = None,
    chunk: int | None = None,
) -> Fitted:
    """Trains a network on a labelled set: step by step the mean loss of a batch goes down.

    A pure function of its arrays, to be traced (`jax.jit`, `jax.vmap`, `jax.lax.map`). Batch
    normalisation takes the statistics of each batch, rows of weight 0 included, and keeps running
    ones. Epoch e draws from fold_in(key, e) alone.

    Args:
      network: the architecture.
      variables: where it starts.
      take: rows [B] int32, or None for the whole set -> (images [B, H, W, C] float32 in model
        space, labels [B, ...]), see `rows_of`.
      batches: which images each step takes, see `train.batches`.
      optimizer: of the parameters; a schedule of the rate belongs to it.
      key: PRNG key of orders, views and targets.
      state: of the optimizer, where a training goes on; a new one by default.
      first: number of the first epoch, where a training goes on.
      views: (key, images, labels) -> (images, labels), see `augmented`.
      supervision: targets and loss; cross-entropy to the labels by default.
      weights: [M] by which the images of the set count in the mean of a batch.
      gradient: another rule, as `ExpertRule.gradient`: (network, epoch) -> (variables, images,
        targets, weights, images before the views) -> (gradient, variables). It has its own loss,
        and nothing is measured.
      measure: (logits, targets) -> [B] of each batch before its step, see `supervised.right`.
      watch: (variables) -> pytree, kept after each epoch; epochs are then a plain number.
      chunk: images whose gradient is taken at a time; None for the backend's default.

    Returns:
      A `Fitted`.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.train.batches import permuted_epochs
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> images, labels = jnp.stack([jnp.zeros((2, 2, 1)), jnp.ones((2, 2, 1))]), jnp.eye(2)
      >>> fitted = fit(network, network.init(jax.random.key(0)), take=rows_of(images, labels),
      ...              batches=permuted_epochs(2, 2, 50), optimizer=optax.sgd(0.5),
      ...              key=jax.random.key(1))
      >>> network.apply(fitted.variables, images).logits.argmax(axis=1).tolist()
      [0, 1]
    """
    supervision = own_labels() if supervision is None else supervision
    state = optimizer.init(variables["params"]) if state is None else state

    def batch(shared, key, epoch, i) -> tuple[Views, jax.Array | None, jax.Array]:
        row_key, view_key, target_key = (jax.random.fold_in(key, use)
                                         for use in (_ROWS, _VIEWS, _TARGETS))
        rows, counted = batches.rows(shared, row_key, i)
        plain, labels = take(rows)
        rows = jnp.arange(plain.shape[0], dtype=jnp.int32) if rows is None else rows
        if weights is not None:
            counted = weights[rows] if counted is None else counted * weights[rows]
        images, labels = (plain, labels) if views is None else views(view_key, plain, labels)
        return Views(images, labels, rows, epoch, target_key), counted, plain

    def gradient_of(rule, variables, seen: Views, counted, plain):
        told = jax.lax.stop_gradient(supervision.targets(supervision.arrays, seen))
        if rule is not None:
            counted = jnp.ones(plain.shape[:1], jnp.float32) if counted is None else counted
            return *rule(variables, seen.images, told, counted, plain), jnp.zeros(())
        return measured_gradient(network, variables, seen.images, told, loss=supervision.loss,
                                 weights=counted, train=True, measure=measure, chunk=chunk)

    def one_epoch(epoch, fitted: Fitted) -> Fitted:
        epoch_key = jax.random.fold_in(key, epoch)
        shared = batches.begin(jax.random.fold_in(epoch_key, _ORDER), epoch)
        step_key = jax.random.fold_in(epoch_key, _STEP)
        rule = None if gradient is None else gradient(network, epoch)

        def step(i, fitted: Fitted) -> Fitted:
            seen = batch(shared, jax.random.fold_in(step_key, i), epoch, i)
            variables, params = fitted.variables, fitted.variables["params"]
            grads, variables, more = gradient_of(rule, variables, *seen)
            grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
            updates, state = optimizer.update(grads, fitted.optimizer, params)
            variables = {**variables, "params": optax.apply_updates(params, updates)}
            measured = fitted.measured + more.astype(fitted.measured.dtype)
            return Fitted(variables, state, measured)

        steps = batches.steps(epoch) if callable(batches.steps) else batches.steps
        return _repeated(step, steps, fitted)

    start = Fitted(variables, state, jnp.zeros((), jnp.float32))
    if watch is None:
        return _repeated(lambda epoch, fitted: one_epoch(first + epoch, fitted), batches.epochs,
                         start)

    def watched(fitted, epoch):
        fitted = one_epoch(first + epoch, fitted)
        return fitted, watch(fitted.variables)

    fitted, seen = jax.lax.scan(watched, start, jnp.arange(batches.epochs, dtype=jnp.int32))
    return fitted._replace(watched=seen)


def _repeated(step: Callable, count: int | jax.Array, carry: PyTree) -> PyTree:
    """carry <- step(i, carry) for i below `count`; one step needs no loop."""
    if isinstance(count, int) and count == 1:
        return step(jnp.zeros((), jnp.int32), carry)
    return jax.lax.fori_loop(0, count, step, carry)
