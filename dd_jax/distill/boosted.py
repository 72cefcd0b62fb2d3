"""Boosting: a set that grows block by block, so that every beginning of it is a good small set.

  S_n = argmin_S L(S),   S starts as S_{n-1} and one block of new images per class;
                         the images of S_{n-1} move at `share` times the usual rate

With share 0 the earlier blocks are frozen, but for rounding where a recipe averages its images.
Unlike `progressive`, which trains networks stage by stage, every S_n is a plain set under the
recipe's own test.

Source: Feng, Vedantam and Kempe, Embarrassingly Simple Dataset Distillation, ICLR 2024 (after its
description; the released code has none of it).
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.backend import as_key
from dd_jax.data import training_part
from dd_jax.distill.plan import Plan, as_plan, complete, refuse_other_run, store_beside
from dd_jax.distill.recipe import Recipe, part_key
from dd_jax.distill.run import distill, run_options
from dd_jax.errors import ConfigError, require_probability, require_whole, told
from dd_jax.run.workdir import inner_folder
from dd_jax.store import DistilledSet
from dd_jax.synthetic import class_start
from dd_jax.types import RealData, Split, SyntheticSet

_ROWS = ("images", "labels")  # parameters with a row for every image


def boosted(
    build: Callable[[int], Plan | Recipe],
    data: RealData | Split,
    *,
    blocks: int,
    share: float = 0.0,
    key: int | jax.Array = 0,
    workdir: str | pathlib.Path | None = None,
    artefacts: Any = None,
    **options: Any,
) -> tuple[DistilledSet, ...]:
    """Distils blocks of images one after another, each beside those before it.

    Args:
      build: (number of blocks) -> the plan or the recipe of a set of so many, class-major and
        stored image by image, such as `lambda n: dd.methods.plan("rat_bptt", data, ipc=n)`.
      data: the real training set.
      blocks: B.
      share: of the updates that earlier images (and their labels) get, in 0..1.
      key: seed or PRNG key; the first block uses it as it is.
      workdir: folder of the run, with a folder for each block; the same call goes on in it.
      artefacts, **options: as for `distill`.

    Returns:
      S_1, ..., S_B.

    Raises:
      ConfigError: numbers that cannot be, or a recipe whose images are not stored one by one.

    Example:
      >>> import dd_jax as dd
      >>> rng = np.random.default_rng(0)
      >>> real = dd.data.from_arrays(rng.integers(0, 256, (8, 8, 8, 1), np.uint8),
      ...                            np.arange(8) % 2)
      >>> def build(n):
      ...     return dd.methods.recipe("dm", real, ipc=n, depth=1, width=4, batch_size=4, steps=2)
      >>> one, two = boosted(build, real, blocks=2, show_progress=False)
      >>> two.ipc, bool((one.synthetic.images[0] == two.synthetic.images[0]).all())
      (2, True)
    """
    require_whole("blocks", blocks, example=5)
    require_probability("share", share)
    if not callable(build):
        raise ConfigError(f"build is {told(build)}, expected a function of the number of blocks",
                          fix="pass lambda n: dd.methods.plan('dm', data, ipc=n)")
    run_options(**options)
    real, key, sets = training_part(data), as_key(key), []
    store = store_beside(artefacts, workdir)
    if blocks > 1:
        refuse_other_run(build(1), real, workdir and inner_folder(workdir, "block_1"))
        _check_grows(complete(build(2), real, artefacts=store), real, key)
    for count in range(1, blocks + 1):
        recipe = as_plan(build(count))
        if sets:
            recipe = recipe.then(partial(grown, earlier=sets[-1].synthetic, share=share))
        folder = None if workdir is None else inner_folder(workdir, f"block_{count}")
        sets.append(distill(recipe, data, key=part_key(key, count - 1), workdir=folder,
                            artefacts=store, **options))
    return tuple(sets)


def grown(recipe: Recipe, earlier: SyntheticSet, *, share: float) -> Recipe:
    """The recipe of a larger set that starts with the images of an earlier one, class by class.

    Args:
      recipe: of the larger set.
      earlier: class-major, of the same recipe for fewer images.
      share: of the updates that these get.
    """
    digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(earlier)))
    settings = {**recipe.settings, "earlier": digest.hexdigest(), "share": share}
    classes, before = earlier.labels.shape[-1], earlier.images.shape[0]

    def by_class(x: jax.Array) -> jax.Array:
        return jnp.asarray(x).reshape(classes, -1, *jnp.shape(x)[1:])

    def begin(data: RealData, key: jax.Array) -> SyntheticSet:
        start = recipe.start(data, key)

        def replaced(new, old):
            new, old = by_class(new), by_class(old)
            return new.at[:, : old.shape[1]].set(old).reshape(-1, *new.shape[2:])

        learned = {name: value for name in ("learning_rate", "log_temperature")
                   if (value := getattr(earlier, name)) is not None}
        return start._replace(images=replaced(start.images, earlier.images),
                              labels=replaced(start.labels, earlier.labels), **learned)

    def slowed(updates, params):
        def one(path, update):
            if path[0].key not in _ROWS:
                return update
            rows = by_class(update)
            old = jnp.arange(rows.shape[1]) < before // classes
            factor = jnp.where(old, share, 1.0).astype(update.dtype)
            return (rows * factor.reshape(1, -1, *(1,) * (rows.ndim - 2))).reshape(update.shape)

        return jax.tree_util.tree_map_with_path(one, updates)

    def wrapped(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        return optax.chain(optimizer, optax.stateless(slowed))

    optimizer = recipe.optimizer
    optimizer = ({name: wrapped(each) for name, each in optimizer.items()}
                 if isinstance(optimizer, Mapping) else wrapped(optimizer))
    return dataclasses.replace(recipe, start=begin, optimizer=optimizer, settings=settings)


def _check_grows(recipe: Recipe, data: RealData, key: jax.Array) -> None:
    """Refuses sets whose images are not stored one by one, each of a class."""
    reason = recipe.objective.bound
    if recipe.labels.kind == "representations":
        reason = "its images have no classes"
    if not reason:
        start = jax.eval_shape(lambda key: class_start(
            "noise", normaliser=recipe.normaliser, ipc=2, kind="one_hot")(data, key), key)
        params = jax.eval_shape(recipe.parameterization.init, key, start)
        shown = jax.eval_shape(recipe.parameterization.decode, params, key).images.shape
        if "images" not in params or not shown == params["images"].shape == start.images.shape:
            reason = "its images are not stored one by one"
    if reason:
        raise ConfigError(f"the set of {recipe.method} cannot grow: {reason}",
                          fix="choose another method")
