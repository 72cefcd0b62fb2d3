"""Labels from a light projector in the place of stored ones: a fixed encoder changed by low rank.

h(x) = W E(x), with E an encoder that was trained without the target labels and W [K, P] the
features that stand for the classes. Every kernel of the encoder, as a matrix [d, k] of inputs and
outputs, and W get a change A B, A [d, r] and B [r, k]; A and B alone are trained, and B begins at
0, so that h begins at the prior. It is fitted to weak teachers' mean logits Y' on real images,

  mean over classes (h(x) - Y')^2 + weight CE(h(x), y),

and then teaches students, view by view, by the same loss. What is stored are A, B and W; the
encoder is public.

Source: Heavy Labels Out! Dataset Distillation with Label Space Lightening (HeLlO), ICCV 2025; no
code was found. Differs from the paper, because no vision-language model is at hand: E is any
network that the caller brings, W are class means of a few labelled images, each of length 1, in the
place of text embeddings, and their K P numbers count as stored. It is a projector without CLIP. The
weight of cross-entropy, rates and the student's augmentation were not published; that weak teachers
(checkpoints of one training) are averaged, and the initialisation of A, are ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_at_least_zero, require_whole
from dd_jax.labels.interpolated import mean_logits
from dd_jax.labels.losses import cross_entropy, mean_squared_error
from dd_jax.labels.supervision import Supervision, Views
from dd_jax.types import Network, Outputs, PyTree

_HEAD = "head"  # of the encoder itself, which is not used; and the name of W's change


def projector(
    encoder: Network, prior: PyTree, prototypes: jax.Array, *, rank: int = 8,
    head_rank: int | None = None,
) -> Network:
    """A network of the low-rank changes of an encoder, as `fit` trains one.

    Args:
      encoder: whose `features` [B, P] are E(x); batch normalisation takes its running statistics.
      prior: its variables, which stay as they are.
      prototypes: W, [K, P], see `class_prototypes`.
      rank: r of the kernels, at most the smaller side of each.
      head_rank: r of W; `rank` by default.

    Returns:
      A `Network`; its variables are "params", name -> {"a" [d, r], "b" [r, k]}, beside "prior" and
      "prototypes", which no training changes.

    Raises:
      ConfigError: a rank that cannot be, or prototypes of another length than the features.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> prior = network.init(jax.random.key(0))
      >>> light = projector(network, prior, jnp.eye(2, 4), rank=2)
      >>> light.apply(light.init(jax.random.key(1)), jnp.ones((3, 2, 2, 1))).logits.shape
      (3, 2)
    """
    head_rank = rank if head_rank is None else head_rank
    shapes = {name: (_matrix(leaf.shape), rank) for name, leaf in _kernels(prior["params"]).items()}
    prototypes = jnp.asarray(prototypes)
    shapes[_HEAD] = (prototypes.shape[::-1], head_rank)
    require_whole("rank", rank, example=8)
    require_whole("head_rank", head_rank, example=8)
    if head_rank > min(prototypes.shape):
        raise ConfigError(f"head_rank is {head_rank}, and prototypes are {prototypes.shape}",
                          fix=f"pass head_rank={min(prototypes.shape)} or less")

    def init(key):
        return {"params": {name: _change(jax.random.fold_in(key, i), *shapes[name])
                           for i, name in enumerate(sorted(shapes))},
                "prior": prior, "prototypes": prototypes}

    def apply(variables, images, train=False):
        changes, fixed = variables["params"], variables["prior"]
        changed = {name: leaf + _product(changes[name]).reshape(leaf.shape)
                   for name, leaf in _kernels(fixed["params"]).items()}
        outputs = encoder.apply({**fixed, "params": _replaced(fixed["params"], changed)}, images)
        head = variables["prototypes"].T + _product(changes[_HEAD])
        if head.shape[0] != outputs.features.shape[1]:
            raise ConfigError(f"prototypes have length {head.shape[0]}, the encoder's features "
                              f"{outputs.features.shape[1]}", fix="call class_prototypes")
        return Outputs(outputs.features @ head, outputs.features, outputs.taps)

    return Network(init=init, apply=apply, name=f"projector_{encoder.name}")


def class_prototypes(features: jax.Array, classes: jax.Array, count: int) -> jax.Array:
    """[K, P], the mean of each class's features [n, P], of length 1.

    Raises:
      ConfigError: a class without an image.

    Example:
      >>> class_prototypes(jnp.array([[3.0, 4.0], [0.0, 2.0]]), jnp.array([0, 1]), 2).tolist()
      [[0.6..., 0.8...], [0.0, 1.0]]
    """
    of_class = jax.nn.one_hot(classes, count, axis=0)
    if not bool(jnp.all(of_class.sum(axis=1) > 0)):
        raise ConfigError(f"not every one of {count} classes has an image",
                          fix="pass one labelled image of each class or more")
    means = of_class @ features / of_class.sum(axis=1, keepdims=True)
    return means / jnp.maximum(jnp.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def stored_projector(variables: PyTree) -> dict[str, PyTree]:
    """What is written down of a projector, in float16: its changes and W, and not the prior."""
    return jax.tree.map(lambda x: x.astype(jnp.float16),
                        {name: variables[name] for name in ("params", "prototypes")})


def projector_bytes(variables: PyTree) -> int:
    """Bytes of `stored_projector`, told from shapes alone."""
    leaves = jax.tree.leaves({n: variables[n] for n in ("params", "prototypes")})
    return sum(2 * leaf.size for leaf in leaves)


def restored_projector(stored: Mapping[str, PyTree], prior: PyTree) -> PyTree:
    """The variables of a projector from what was stored and the public encoder's."""
    return {**jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), dict(stored)), "prior": prior}


class LogitsAndLabels(NamedTuple):
    """What is told of a view: a teacher's logits [B, K], and the set's own labels [B, K]."""

    logits: jax.Array
    labels: jax.Array


@dataclasses.dataclass(frozen=True)
class SquaresAndClasses:
    """mean over classes (z - Y)^2 + weight CE(z, y).

    Attributes:
      weight: of cross-entropy.
    """

    weight: float = 0.1

    def __post_init__(self):
        require_at_least_zero("weight", self.weight)

    def __call__(self, logits: jax.Array, targets: LogitsAndLabels) -> jax.Array:
        return (mean_squared_error(logits, targets.logits)
                + self.weight * cross_entropy(logits, targets.labels))


def logits_and_labels(
    teachers: Sequence[tuple[Network, PyTree]], *, weight: float = 0.1
) -> Supervision:
    """The mean logits of teachers that look at the same views, beside the set's labels.

    Fits a projector to its weak teachers, and a student to the projector.

    Args:
      teachers: (network, variables) of each.
      weight: of cross-entropy to the labels [B, K].

    Returns:
      A `Supervision` whose arrays are the teachers' variables.

    Raises:
      ConfigError: no teacher, or a weight that cannot be.
    """
    if not teachers:
        raise ConfigError("there is no teacher", fix="pass [(network, variables)]")
    return Supervision(_Both(tuple(network for network, _ in teachers)), SquaresAndClasses(weight),
                       tuple(variables for _, variables in teachers))


@dataclasses.dataclass(frozen=True)
class _Both:
    networks: tuple[Network, ...]

    def __call__(self, arrays: PyTree, views: Views) -> LogitsAndLabels:
        told = mean_logits(tuple(zip(self.networks, arrays)), views.images)
        return LogitsAndLabels(told, views.labels)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """A kernel [..., k] as a matrix [d, k]."""
    rows = 1
    for side in shape[:-1]:
        rows *= side
    return rows, shape[-1]


def _change(key: jax.Array, sides: tuple[int, int], rank: int) -> dict[str, jax.Array]:
    rows, cols = sides
    rank = min(rank, rows, cols)
    return {"a": jax.random.normal(key, (rows, rank), jnp.float32) / jnp.sqrt(rows),
            "b": jnp.zeros((rank, cols), jnp.float32)}


def _product(change: Mapping[str, jax.Array]) -> jax.Array:
    return jnp.matmul(change["a"], change["b"], precision="highest")


def _kernels(params: PyTree) -> dict[str, jax.Array]:
    """Name -> every leaf of two axes or more, those of the encoder's own head left out."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    return {name: leaf for name, leaf in named.items()
            if leaf.ndim >= 2 and name.split(".")[0] != _HEAD}


def _replaced(params: PyTree, changed: Mapping[str, jax.Array]) -> PyTree:
    def one(path, leaf):
        return changed.get(jax.tree_util.keystr(path, simple=True, separator="."), leaf)

    return jax.tree_util.tree_map_with_path(one, params)
