"""The figures of a finished set: which tests it takes depends on what its labels are."""

from __future__ import annotations

import dataclasses
from typing import Any

from dd_jax import evaluate
from dd_jax.distill import Recipe
from dd_jax.errors import SEEDS
from dd_jax.evaluate.baselines import full_baseline, random_baseline
from dd_jax.store import DistilledSet
from dd_jax.store.artefacts import ArtefactStore
from dd_jax.types import Split


def later_seed(seed: int, by: int) -> int:
    """The seed of another test; after the last one comes the first."""
    return (seed + by) % SEEDS


def network_figures(
    distilled: DistilledSet, recipe: Recipe, data: Split, *, seed: int, seeds: int | None,
    full: bool, store: ArtefactStore,
) -> dict[str, Any]:
    """Accuracies of fresh networks trained on the set, on random images and on all data."""
    tested = evaluate.evaluate_progressive(
        distilled, data.test, protocol=recipe.evaluation, key=later_seed(seed, 1),
        seeds=seeds)
    common = dict(protocol=recipe.evaluation, normaliser=recipe.normaliser, labels=recipe.labels)
    figures = dict(_of(tested), random_mean=None, random_std=None, full_mean=None)
    if evaluate.has_random(distilled, data.train):
        random = store.get(random_baseline(
            data, ipc=evaluate.budget(distilled), shown=distilled.synthetic.images.shape[0],
            seeds=seeds, seed=later_seed(seed, 1), **common), data.train)
        figures |= dict(random_mean=random.mean, random_std=random.std)
    if full:
        baseline = full_baseline(data, seed=later_seed(seed, 2), **common)
        figures["full_mean"] = store.get(baseline, data.train).mean
    return figures


def transfer_figures(
    distilled: DistilledSet, recipe: Recipe, data: Split, *, seed: int,
    budget: evaluate.TransferBudget,
) -> dict[str, Any]:
    """Linear probes of networks pre-trained on a set of representations, on the set's own data.

    "random" is as many random images with the same teacher's representations.
    """
    budget = dataclasses.replace(budget, tune_steps=0)  # `evaluate` on the saved set does that too
    common = dict(normaliser=recipe.normaliser, protocol=recipe.evaluation, budget=budget,
                  key=later_seed(seed, 1))
    tested = evaluate.evaluate_transfer(distilled.trainable(), data, **common).probe
    random = evaluate.evaluate_transfer_random(data.train, recipe.start, data, **common).probe
    without = evaluate.evaluate_transfer(None, data, **common).probe
    return dict(_of(tested), random_mean=random.mean, random_std=random.std, full_mean=None,
                test="linear probe", untrained_mean=without.mean, untrained_std=without.std)


def read_out_figures(distilled: DistilledSet, data: Split, *, seed: int, known) -> dict[str, Any]:
    """Accuracy of the method's own kernel regression, beside random images and the paper."""
    read = evaluate.read_out(distilled, data.test)
    random = None
    if evaluate.has_random(distilled, data.train):
        random = evaluate.read_out_random(distilled, data, key=later_seed(seed, 1), seeds=3)
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
