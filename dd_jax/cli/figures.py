"""The figures of a finished set: which tests it takes depends on what its labels are."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax

from dd_jax import evaluate
from dd_jax.cli.baselines import full_accuracy
from dd_jax.distill import Recipe
from dd_jax.distill.prepare import prepare_in
from dd_jax.store import DistilledSet
from dd_jax.types import Split


def network_figures(
    distilled: DistilledSet, recipe: Recipe, data: Split, *, ipc: int, seed: int,
    seeds: int | None, full: bool,
) -> dict[str, Any]:
    """Accuracies of fresh networks trained on the set, on random images and on all data."""
    common = dict(protocol=recipe.evaluation, key=jax.random.key(seed + 1), seeds=seeds)
    tested = evaluate.evaluate_progressive(distilled, data.test, **common)
    random = None
    if evaluate.has_random(distilled, data.train):
        random = evaluate.evaluate_random(
            data, ipc=ipc, normaliser=recipe.normaliser, label_kind=recipe.label_kind,
            label_scale=recipe.label_scale, shown=distilled.synthetic.images.shape[0], **common,
        )
    return dict(
        _of(tested), random_mean=random and random.mean, random_std=random and random.std,
        full_mean=full_accuracy(data, recipe, seed=seed) if full else None,
    )


def transfer_figures(
    distilled: DistilledSet, recipe: Recipe, data: Split, *, folder: pathlib.Path, seed: int,
    budget: evaluate.TransferBudget,
) -> dict[str, Any]:
    """Linear probes of networks pre-trained on a set of representations, on the set's own data.

    "random" is as many random images with the same teacher's representations.
    """
    budget = dataclasses.replace(budget, tune_steps=0)  # `evaluate` on the saved set does that too
    complete = prepare_in(folder, recipe, data.train, jax.random.key(seed))
    common = dict(normaliser=recipe.normaliser, protocol=recipe.evaluation, budget=budget,
                  key=jax.random.key(seed + 1))
    tested = evaluate.evaluate_transfer(distilled.synthetic, data, **common).probe
    random = evaluate.evaluate_transfer_random(
        data.train, complete.initialise, data, **common
    ).probe
    without = evaluate.evaluate_transfer(None, data, **common).probe
    return dict(_of(tested), random_mean=random.mean, random_std=random.std, full_mean=None,
                test="linear probe", untrained_mean=without.mean, untrained_std=without.std)


def read_out_figures(distilled: DistilledSet, data: Split, *, seed: int, known) -> dict[str, Any]:
    """Accuracy of the method's own kernel regression, beside random images and the paper."""
    read = evaluate.read_out(distilled, data.test)
    random = None
    if evaluate.has_random(distilled, data.train):
        random = evaluate.read_out_random(distilled, data, key=jax.random.key(seed + 1), seeds=3)
    return dict(
        read_out_mean=read.mean, read_out_seconds=round(read.seconds, 1),
        read_out_random_mean=random and random.mean, read_out_random_std=random and random.std,
        published_read_out=known and known._asdict(),
    )


def _of(tested: evaluate.Evaluation) -> dict[str, Any]:
    return dict(
        accuracy_mean=tested.mean, accuracy_std=tested.std, networks=len(tested.accuracies),
        accuracies=tested.accuracies.tolist(), evaluate_seconds=round(tested.seconds, 1),
    )
