"""Any objective on representative real batches instead of random ones.

Source: Liu et al., DREAM: Efficient Dataset Distillation by Representative Matching, ICCV 2023.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.data import Normaliser, as_index, check_classes, require_on_device
from dd_jax.data.arrays import one_class
from dd_jax.errors import ConfigError, require_whole
from dd_jax.objectives.combine import wrapped_variants
from dd_jax.train.representatives import check_selection, representatives
from dd_jax.types import Batch, Network, Objective, PyTree, RealData, SyntheticSet


class RepresentativeState(NamedTuple):
    """State of `representative_batches`.

    Attributes:
      inner: of the objective.
      rows: the rows of the last step, as the objective's `sample` returns them; where a step has
        those of one class only, the last ones of every class, [K, n].
      chosen: for each leaf of rows the step of the last choice, [] int32, or [K], of each class.
      age: [] int32, steps taken.
    """

    inner: PyTree
    rows: PyTree
    chosen: tuple
    age: jax.Array


def _counts(rows: PyTree, classes: int) -> list[int]:
    """For each leaf the rows per class that are to be representatives; 0 where it stays random."""
    named, _ = jax.tree_util.tree_flatten_with_path(rows)
    leaves = [leaf for _, leaf in named]
    # Of a dict only what is matched: other parts train or measure networks.
    asked = [all(getattr(step, "key", "match") == "match" for step in path) for path, _ in named]
    whole = [jnp.issubdtype(x.dtype, jnp.integer) for x in leaves]
    counts = [x.shape[1] if use and ok and x.ndim == 2 and x.shape[0] in (1, classes) else 0
              for x, ok, use in zip(leaves, whole, asked)]
    if not any(counts) and len(leaves) == 1 and whole[0] and leaves[0].ndim == 1:
        counts = [leaves[0].shape[0] // classes]
    if not any(counts):
        found = ", ".join(f"{x.dtype} {list(x.shape)}" for x in leaves) or "no rows"
        raise ConfigError(
            f"the objective's sample gives {found}: nothing that representatives can replace, "
            f"expected rows [{classes}, n] or [1, n], or [B] with B of at least {classes}",
            fix="take a larger real batch, or an objective that uses real batches",
        )
    return counts


def _head(leaf: jax.Array, count: int, classes: int) -> jax.Array:
    """The first `count` rows for each class as [K, count]: all of a leaf [K, count]."""
    return leaf.reshape(-1)[: classes * count].reshape(classes, count)


def _with_head(leaf: jax.Array, head: jax.Array) -> jax.Array:
    return leaf.reshape(-1).at[: head.size].set(head.reshape(-1)).reshape(leaf.shape)


def check_refresh(*, every: int, **selection) -> None:
    """Checks the settings of `representative_batches`, before there is any data.

    Raises:
      ConfigError: if one of them is out of its range.
    """
    require_whole("every", every, example=10)
    check_selection(None, **selection)


def representative_batches(
    objective: Objective,
    data: RealData,
    *,
    normaliser: Normaliser,
    every: int = 10,
    candidates: int | None = None,
    iterations: int = 10,
    subsample: int = 1,
    network: Network | None = None,
) -> Objective:
    """The same objective on real batches that represent their classes, see `train.representatives`.

    Every `every`-th step the representatives are chosen anew, by the features of the objective's
    present network (of another draw from the pool than the loss of that step takes); the steps in
    between keep them. Of what the objective samples,
      - rows [K, n], class by class, become n representatives of each class, and rows [1, n] those
        of the class that has its turn, each class in its own time; of a dict of rows only those
        called "match";
      - rows [B], where there is nothing else, become B // K representatives of each class, class by
        class, followed by the remaining rows;
      - everything else, such as rows for the training of networks, stays as it is: new in every
        step. That includes rows [K, n] that are not class by class.

    Args:
      objective: any that uses real batches.
      data: the real set; only its shapes are kept.
      normaliser: of the recipe.
      every: steps for which representatives are kept.
      candidates, iterations, subsample: see `train.representatives`.
      network: for an objective without `embed`: features of this network, freshly initialised for
        each choice.

    Returns:
      An `Objective` whose state is a `RepresentativeState`; its `sample` looks at images, so they
      have to be on the device, and its batches have to carry their rows.

    Raises:
      ConfigError: if a setting is out of its range, if the images are not on the device, or if
        there is no network to embed by; from `init`: if the objective samples nothing that
        representatives can replace, or counts do not fit the settings; from `advance`: if a batch
        does not carry its rows.
      DataError: if a class is empty.

    Example:
      >>> import numpy as np
      >>> from dd_jax import data, nets, objectives, pools
      >>> real = data.from_arrays(np.zeros((6, 4, 4), np.uint8), [0, 0, 0, 1, 1, 1])
      >>> network = nets.mlp(real.spec, width=8)
      >>> plain = objectives.mean_embedding(network, pools.fresh_pool(network), batch_size=2)
      >>> objective = representative_batches(plain, real, normaliser=data.standardise(real))
      >>> state = objective.init(jax.random.key(0), None)
      >>> objective.sample(real, state, jax.random.key(1)).shape
      (2, 2)
    """
    options = dict(candidates=candidates, iterations=iterations, subsample=subsample)
    check_refresh(every=every, **options)
    require_on_device(data, "the choice of representatives")
    check_classes(data)
    if objective.embed is None and network is None:
        raise ConfigError("the objective has no network to embed real images by",
                          fix="pass network=nets.convnet(data.spec) or another one")
    index = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), as_index(data))
    return _built(_Choice(objective, network, index, normaliser, every, options))


@dataclasses.dataclass(frozen=True)
class _Choice:
    """The checked settings of one `representative_batches`.

    Attributes:
      objective: whose batches are chosen.
      network: that embeds real images where the objective has no `embed`.
      index: the real set without images, as shapes: what a closure holds becomes a constant of
        every program.
      normaliser: of the recipe.
      every: steps for which representatives are kept.
      options: of `train.representatives`.
    """

    objective: Objective
    network: Network | None
    index: RealData
    normaliser: Normaliser
    every: int
    options: Mapping[str, Any]

    @property
    def classes(self) -> int:
        """K."""
        return self.index.spec.num_classes

    def features(self, inner: PyTree, images: jax.Array, key: jax.Array) -> jax.Array:
        """[B, P], by the objective's present network or by the one that was given."""
        if self.objective.embed is not None:
            return self.objective.embed(inner, images, key)
        variables = self.network.init(key)
        return in_chunks(lambda x: self.network.apply(variables, x).features, images)


def _built(of: _Choice) -> Objective:
    objective = of.objective
    return objective._replace(
        loss=partial(_loss, objective),
        init=partial(_init, of),
        sample=partial(_sample, of),
        advance=partial(_advance, objective, of.every),
        embed=None if objective.embed is None else partial(_embed, objective),
        variants=wrapped_variants(
            (objective,), lambda other: _built(dataclasses.replace(of, objective=other))),
    )


def _init(of: _Choice, key: jax.Array, synthetic: SyntheticSet) -> RepresentativeState:
    inner = of.objective.init(key, synthetic)
    rows = jax.eval_shape(of.objective.sample, of.index, inner, key)
    counts = _counts(rows, of.classes)
    for count in filter(None, counts):
        check_selection(count, **of.options)

    def nothing(leaf):
        shape = (of.classes, *leaf.shape[1:]) if _of_one_class(leaf, of.classes) else leaf.shape
        return jnp.zeros(shape, leaf.dtype)

    leaves = jax.tree.leaves(rows)
    shapes = [(of.classes,) if _of_one_class(leaf, of.classes) else () for leaf in leaves]
    return RepresentativeState(
        inner=inner,
        rows=jax.tree.map(nothing, rows),
        chosen=tuple(jnp.full(shape, -of.every, jnp.int32) for shape in shapes),
        age=jnp.zeros((), jnp.int32),
    )


def _of_one_class(leaf: jax.Array, classes: int) -> bool:
    """Whether rows are those of the class that has its turn, by their shape."""
    return leaf.ndim == 2 and leaf.shape[0] == 1 < classes


def _sample(of: _Choice, data: RealData, state: RepresentativeState, key: jax.Array) -> PyTree:
    rows_key, embed_key, choice_key = jax.random.split(key, 3)
    random = of.objective.sample(data, state.inner, rows_key)
    require_on_device(data, "the choice of representatives")
    counts = _counts(random, of.classes)
    leaves, tree = jax.tree.flatten(random)
    kept = jax.tree.leaves(state.rows)

    def chosen(i: int, count: int) -> jax.Array:
        leaf, real, last, old = leaves[i], data, state.chosen[i], kept[i]
        classes = jnp.arange(of.classes)
        if _of_one_class(leaf, of.classes):
            turn = data.labels[leaf[0, 0]]
            real, last, old, classes = one_class(data, turn), last[turn], old[turn], turn[None]

        def choose():
            return representatives(real, lambda x: of.features(state.inner, x, embed_key),
                                   count=count, key=jax.random.fold_in(choice_key, i),
                                   normaliser=of.normaliser, **of.options)

        head = jax.lax.cond(state.age - last >= of.every, choose,
                            lambda: _head(old, count, len(classes)))
        return _put(data, leaf, head, classes)

    return jax.tree.unflatten(tree, [chosen(i, count) if count else leaves[i]
                                     for i, count in enumerate(counts)])


def _put(data: RealData, leaf: jax.Array, head: jax.Array, classes: jax.Array) -> jax.Array:
    """Random rows with representatives in their place."""
    if leaf.ndim == 1:
        return _with_head(leaf, head)
    # Shapes alone do not tell K batches of any class from one batch of each of K classes.
    by_class = jnp.all(data.labels[leaf] == classes[:, None])
    return jnp.where(by_class, head, leaf)


def _loss(
    objective: Objective, synthetic: SyntheticSet, state: RepresentativeState, batch: PyTree, key
):
    return objective.loss(synthetic, state.inner, batch, key)


def _advance(
    objective: Objective, every: int, synthetic: SyntheticSet, state: RepresentativeState,
    batch: PyTree, key: jax.Array,
) -> RepresentativeState:
    batches = jax.tree.leaves(batch, is_leaf=lambda b: isinstance(b, Batch))
    if any(b.rows is None for b in batches):
        raise ConfigError("the batch does not say which rows it holds",
                          fix="get it from the fetch of dd_jax.distillation")
    rows, tree = jax.tree.flatten(state.rows)
    after = [_noted(*parts, state.age, every) for parts in zip(batches, rows, state.chosen)]
    return RepresentativeState(
        inner=objective.advance(synthetic, state.inner, batch, key),
        rows=jax.tree.unflatten(tree, [kept for kept, _ in after]),
        chosen=tuple(chosen for _, chosen in after),
        age=state.age + 1,
    )


def _noted(batch: Batch, kept: jax.Array, chosen: jax.Array, age: jax.Array, every: int):
    """(rows that are kept, when they were chosen) after a step."""
    if kept.shape == batch.rows.shape:
        return batch.rows, jnp.where(age - chosen >= every, age, chosen)
    turn = batch.labels[0, 0]
    time = jnp.where(age - chosen[turn] >= every, age, chosen[turn])
    return kept.at[turn].set(batch.rows[0]), chosen.at[turn].set(time)


def _embed(
    objective: Objective, state: RepresentativeState, images: jax.Array, key: jax.Array
) -> jax.Array:
    return objective.embed(state.inner, images, key)
