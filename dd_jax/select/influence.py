"""Influence distillation of a small network: images whose step lowers the loss of held-out ones.

  p_{l,t} = cos(G_l, mean of G over held-out images of class t)     of landmarks l
  p_{i,t} = k(h_i, h_L) (k(h_L, h_L) + damping I)^{-1} p_{L,t}      of every image i
  k(a, b) = exp(-|a - b|^2 / (2 sigma^2)),   sigma = the median distance of some images

with gradients G and inputs h of the last layer. Classes then take turns, in an order that is drawn
anew each time; at its turn a class takes the image of the largest p_{i,t} that is left.

Source: Nikdan, Cohen-Addad, Alistarh and Mirrokni, Efficient Data Selection at Scale via Influence
Distillation, 2025: its first order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data import rows_of_classes
from dd_jax.errors import require_at_least_zero, require_probability, require_whole
from dd_jax.select.gradients import LastLayer, along, take, unit, weighted_sum
from dd_jax.select.greedy_choices import greedy
from dd_jax.select.memory import NUMBER, Bytes, Memory, Phase, Sizes, known_gradients
from dd_jax.select.rules import unweighted
from dd_jax.select.selector import Chosen, Selector, check_known
from dd_jax.solvers.kernel_ridge import fit_kernel
from dd_jax.types import RealData

_SAMPLE = 1000  # images whose distances give the kernel's width
_BLOCK = 1024  # images that are compared with all landmarks at a time
_HELD_OUT, _LANDMARKS, _WIDTH = range(3)


class Influence(NamedTuple):
    """What is known of each image.

    Attributes:
      influence: p, [n, K] float32.
      held_out: whether its gradient is among the targets, [n] bool.
      labels: [n] int32.
    """

    influence: Any
    held_out: Any
    labels: Any


def influence(
    held_out: float = 0.1, *, landmarks: int = 4096, damping: float = 0.01,
    block: int | None = None,
) -> Selector:
    """The selector.

    Args:
      held_out: share of each class whose gradients are the targets, at least one image of each.
        These are chosen only where all others are.
      landmarks: images whose influence is computed, of those that are not held out.
      damping: of the kernel, as a share of its diagonal.
      block: images that are compared with all landmarks at a time; None: 1,024.

    Raises:
      ConfigError: a share that is none, no landmark, a damping below 0.

    Example:
      >>> influence().needs, influence().drawn
      (('gradients',), True)
    """
    require_probability("held_out", held_out)
    require_whole("landmarks", landmarks, example=4096)
    require_at_least_zero("damping", damping, example=0.01)

    def scored(data: RealData, have: Mapping[str, Any], key: jax.Array) -> Influence:
        seen, labels = have["gradients"], np.asarray(data.labels, np.int32)
        check_known(seen, data)
        classes = rows_of_classes(data)
        held = held_out_of(classes, held_out, jax.random.fold_in(key, _HELD_OUT))
        rest = np.flatnonzero(~held) if not held.all() else np.arange(len(labels))
        order = np.asarray(jax.random.permutation(
            jax.random.fold_in(key, _LANDMARKS), len(rest)))
        rows = np.sort(rest[order[:landmarks]])
        aligned = alignments(take(seen, rows), [take(seen, own[held[own]]) for own in classes])
        sigma = kernel_width(seen.inputs, jax.random.fold_in(key, _WIDTH))
        found = propagated(seen.inputs, rows, aligned, sigma, damping, block=block or _BLOCK)
        return Influence(found, held, labels)

    def blocked(block: int) -> Selector:
        return influence(held_out, landmarks=landmarks, damping=damping, block=block)

    return Selector(scored, in_turns, needs=("gradients",), drawn=True,
                    memory=_memory(landmarks), blocked=blocked)


def _memory(landmarks: int) -> Memory:
    def marks(sizes: Sizes) -> int:
        return min(landmarks, sizes.images)

    def host(sizes: Sizes) -> Bytes:
        return {**known_gradients(sizes), "influence": NUMBER * sizes.images * sizes.classes}

    def score(sizes: Sizes) -> Bytes:  # the kernel, damped, and its factor
        row = 2 * (sizes.classes + sizes.width)
        return {"landmarks": NUMBER * marks(sizes) * row, "kernel": 5 * NUMBER * marks(sizes) ** 2}

    def choice(sizes: Sizes) -> Bytes:
        return {"influence": 3 * NUMBER * sizes.group * sizes.classes,
                "numbers": 6 * NUMBER * sizes.group}

    compared = Phase(
        score, block=lambda sizes: min(_BLOCK, sizes.images),
        row=lambda sizes: NUMBER * (2 * marks(sizes) + sizes.width + sizes.classes))
    return Memory(host, {"score": compared, "choice": Phase(choice)})


def held_out_of(classes: list[np.ndarray], share: float, key: jax.Array) -> np.ndarray:
    """[N] bool, a drawn share of each class, rounded, and at least one image.

    Args:
      classes: rows of each class.
      share: of a class.
      key: PRNG key.
    """
    total = sum(map(len, classes))
    drawn = np.asarray(jax.random.uniform(key, (total,), jnp.float32))
    held = np.zeros(total, bool)
    for rows in filter(len, classes):
        rows = rows[np.argsort(drawn[rows], kind="stable")]
        held[rows[: max(1, round(share * len(rows)))]] = True
    return held


def alignments(some: LastLayer, targets: list[LastLayer]) -> np.ndarray:
    """Cosines of gradients [n] and the mean gradient of each class: [n, K] float32.

    0 for a class without images. A class's mean is one matrix, and one class's is held at a time.
    """
    some, found = unit(jax.tree.map(jnp.asarray, some)), []
    for target in targets:
        size = len(target.error)
        mean = weighted_sum(jax.tree.map(jnp.asarray, target),
                            jnp.full((size,), 1 / max(size, 1), jnp.float32))
        found.append(np.asarray(along(some, mean / jnp.maximum(jnp.linalg.norm(mean), 1e-12))))
    return np.stack(found, axis=1)


def kernel_width(inputs: np.ndarray, key: jax.Array) -> float:
    """The median distance of up to 1,000 drawn images; 1 where more than half are alike."""
    rows = np.asarray(jax.random.permutation(key, len(inputs)))[:_SAMPLE]
    points = np.asarray(inputs[rows], np.float64)
    points = points - points.mean(axis=0)
    lengths = np.sum(points**2, axis=1)
    far = lengths[:, None] + lengths - 2 * points @ points.T
    upper = far[np.triu_indices(len(points), 1)]
    median = float(np.sqrt(max(np.median(upper), 0))) if len(upper) else 0.0
    return median if median > 0 else 1.0


def propagated(
    inputs: np.ndarray, rows: np.ndarray, aligned: np.ndarray, sigma: float, damping: float, *,
    block: int = _BLOCK,
) -> np.ndarray:
    """Kernel ridge regression of the landmarks' values at every image: [N, K] float32.

    Args:
      inputs: h, [N, P].
      rows: of the landmarks, [L].
      aligned: their values, [L, K].
      sigma: width of the kernel.
      damping: as a share of the kernel's diagonal.
      block: images that are compared with all landmarks at a time.
    """
    centre = inputs[rows].mean(axis=0)
    scale = np.float32(1 / (np.sqrt(2) * sigma))
    marks = jnp.asarray((inputs[rows] - centre) * scale)
    fitted = fit_kernel(_kernel(marks, marks), jnp.asarray(aligned), ridge=damping).alpha
    found = []
    block = min(block, len(inputs))
    for start in range(0, len(inputs), block):
        part = np.minimum(np.arange(start, start + block), len(inputs) - 1)
        points = jnp.asarray((inputs[part] - centre) * scale)
        found.append(np.asarray(_at(points, marks, fitted)))
    return np.concatenate(found)[: len(inputs)]


def _kernel(a: jax.Array, b: jax.Array) -> jax.Array:
    far = (jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1)
           - 2 * jnp.matmul(a, b.T, precision="highest"))
    return jnp.exp(-jnp.maximum(far, 0))


@jax.jit
def _at(points, marks, fitted):
    return jnp.matmul(_kernel(points, marks), fitted, precision="highest")


def in_turns(known: Influence, valid: jax.Array, count: int, key: jax.Array) -> Chosen:
    """The classes that a group holds take turns.

    Of a group that is one class, these are the images of the largest influence on this class. What
    was held out comes after all others.

    Args:
      known: of each image of the group.
      valid, count: as for `Selector.choose`.
      key: draws the order of each round.

    Returns:
      `Chosen`, weights 1.

    Example:
      >>> known = Influence(jnp.array([[3.0, 0.0], [2.0, 0.0], [1.0, 9.0]]),
      ...                   jnp.array([False, False, True]), jnp.array([0, 0, 0]))
      >>> in_turns(known, jnp.ones(3, bool), 3, jax.random.key(0)).rows.tolist()
      [0, 1, 2]
    """
    classes = known.influence.shape[1]
    here = np.unique(np.asarray(known.labels)[np.asarray(valid)])
    rounds = jnp.arange(-(-len(valid) // len(here)))
    orders = jax.vmap(lambda turn: jax.random.permutation(
        jax.random.fold_in(key, turn), classes))(rounds)
    turns = np.asarray(orders).reshape(-1)
    turns = jnp.asarray(turns[np.isin(turns, here)][: len(valid)], jnp.int32)
    return unweighted(_in_turns(known, valid, turns, count), count)


@jax.jit
def _in_turns(known, valid, turns, count):
    values = jnp.where(valid[:, None], known.influence, 0)
    below = 1 + jnp.max(values) - jnp.min(values)
    values = jnp.where(known.held_out[:, None], values - below, values)
    return greedy(lambda state, i: values[:, turns[i]], lambda state, place: state, (), valid,
                  count)
