"""PDD: any recipe in stages, each of which adds images to those of the stages before.

  S_p = argmin_S  L(S_1 + ... + S_{p-1} + S),   the earlier ones frozen

Differs from the official code:
  - every stage has its own run; nothing is chosen by test accuracy between stages;
  - networks are trained between stages as in the final test, for as many epochs (there 1,001 and
    501), and momentum starts anew at every stage of that test, too (there it is carried over);
  - networks that stages start from are trained anew from their first weights on all earlier sets
    (there on from where the stage before left them, which is the same training at another time);
    only plans with `later` have such networks, those of trajectory methods so far: others, and
    recipes that are complete already, are conditioned on the earlier images alone;
  - where inner batches are the whole set (`batch_size=None`, as in MTT's presets), an inner step
    takes the images of all stages (there as many as stage 1 has, drawn from all alike: so does
    `methods.pdd`, and another recipe where it is given that `batch_size`);
  - easy real images are never left out (in the paper, not in the released settings).

Source: Chen et al., Data Distillation Can Be Like Vodka: Distilling More Times For Better Quality,
ICLR 2024.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Any

import jax
import numpy as np

from dd_jax.backend import as_key
from dd_jax.data import fingerprint, training_part
from dd_jax.distill.plan import Plan, as_plan, check_plan, complete, refuse_other_run, store_beside
from dd_jax.distill.recipe import Recipe, part_key, with_objective
from dd_jax.distill.run import distill, run_options
from dd_jax.errors import ConfigError, require_whole
from dd_jax.evaluate.progressive import equal_budget, trained_on
from dd_jax.evaluate.supervision import loss_for
from dd_jax.labels.supervision import own_labels
from dd_jax.objectives.conditioned import conditioned
from dd_jax.run.workdir import claim, inner_folder
from dd_jax.store import DistilledSet, save
from dd_jax.synthetic.joined import joined
from dd_jax.types import RealData, Split, SyntheticSet


def progressive(
    plan: Plan | Recipe,
    data: RealData | Split,
    *,
    stages: int | None = None,
    key: int | jax.Array = 0,
    workdir: str | pathlib.Path | None = None,
    artefacts: Any = None,
    **options: Any,
) -> DistilledSet:
    """Distils in stages: each adds the recipe's images to those of the stages before, now frozen.

    Stage 1 is the recipe itself. The last set has `stages` times its images; train networks on it
    stage by stage, by `evaluate.evaluate_progressive`. With a `workdir` every stage has a folder in
    it, and the same call continues a run that was stopped.

    Args:
      plan: of one stage, or its recipe.
      data: the real training set.
      stages: P; by default those of the method, 1 for most.
      key: seed or PRNG key; stage 1 uses it as it is.
      workdir: folder of the run.
      artefacts, **options: of every stage, as for `distill`.

    Returns:
      The `DistilledSet` of all stages, with a learning rate for each if the recipe learns one; it
      notes the number of stages in its recipe.

    Raises:
      CheckpointError: the folder belongs to another run.
      ConfigError: `stages` below 1; a recipe whose images do not belong to classes, or whose
        objective knows its images one by one.

    Example:
      >>> import numpy as np, dd_jax as dd
      >>> rng = np.random.default_rng(0)
      >>> real = dd.data.from_arrays(rng.integers(0, 256, (8, 8, 8, 1), np.uint8),
      ...                            np.arange(8) % 2)
      >>> recipe = dd.methods.recipe("dm", real, depth=1, width=4, batch_size=4, steps=2)
      >>> progressive(recipe, real, stages=2, show_progress=False).synthetic.images.shape
      (4, 8, 8, 1)
    """
    stages = as_plan(plan).stages if stages is None else stages
    require_whole("stages", stages, example=5)
    check_plan(plan)
    run_options(**options)
    real, key = training_part(data), as_key(key)
    store = store_beside(artefacts, workdir)
    refuse_other_run(plan, real, workdir)
    recipe = complete(plan, real, artefacts=store, show_progress=options.get("show_progress"))
    for reason in (recipe.objective.bound, recipe.labels.kind == "representations" and
                   "its images have no classes"):
        if reason and stages > 1:
            raise ConfigError(f"the recipe of {recipe.method} has no stages: {reason}",
                              fix="choose another method")
    whole, rates, sets = None, [], []
    spec = real.spec
    if workdir is not None:
        claim(workdir, {"method": recipe.method, "settings": dict(recipe.settings),
                        "steps": recipe.steps, "stages": stages, "data": fingerprint(real),
                        "key": np.asarray(jax.random.key_data(key)).tolist()})
    for stage in range(stages):
        now = recipe if stage == 0 else next_stage(plan, recipe, sets, spec, stage, stages)
        folder = None if workdir is None else inner_folder(workdir, f"stage_{stage + 1}")
        found = distill(now, data, key=part_key(key, stage), workdir=folder,
                        artefacts=store, **options)
        new = jax.tree.map(np.asarray, found.synthetic)
        whole = new if whole is None else jax.tree.map(np.asarray,
                                                       joined(whole, new, spec.num_classes))
        seen = dataclasses.replace(found, synthetic=whole, stored=None).trainable()
        sets.append(jax.tree.map(np.asarray, seen))
        rates.append(new.learning_rate)
    if stages > 1 and rates[0] is not None:
        whole = whole._replace(learning_rate=np.stack(rates))
    each = {name: found.recipe[name] for name in ("ipc", "stored_bytes", "shown_images")
            if name in found.recipe}
    notes = {**found.recipe, **{k: stages * v for k, v in each.items()}, "stages": stages}
    finished = dataclasses.replace(found, synthetic=whole, recipe=notes, stored=None)
    if workdir is not None:
        save(pathlib.Path(workdir) / "set.safetensors", finished)
    return finished


def next_stage(
    plan: Plan | Recipe, recipe: Recipe, sets: list[SyntheticSet], spec: Any, stage: int,
    stages: int,
) -> Plan:
    """The plan of one more set, given the growing ones before it.

    Args:
      plan: of one stage.
      recipe: its complete recipe.
      sets: those of the stages before, each with all images so far.
      spec: of the data.
      stage, stages: the number of this one, from 0, and of all.
    """
    plan, earlier = as_plan(plan), sets[-1]
    digest = hashlib.sha256(np.asarray(earlier.images).tobytes()
                            + np.asarray(earlier.labels).tobytes()).hexdigest()
    if plan.later is not None:
        protocol = recipe.evaluation
        protocol = protocol.varied(epochs=equal_budget(protocol.plan.epochs, stages))

        def start(network):
            told = own_labels(loss_for(recipe.labels.kind, protocol))
            return trained_on(network, sets, protocol, shape=spec.shape,
                              supervision=[told] * len(sets))

        plan = plan.later(start, digest)
    return plan.then(lambda one: with_objective(
        one, lambda o: conditioned(o, earlier, spec.num_classes),
        {"stage": stage + 1, "earlier": digest}))
