"""The full-data baseline, kept in the user's cache because it is slow and never changes."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib

import jax

from dd_jax import evaluate
from dd_jax.data import fingerprint
from dd_jax.distill import Recipe
from dd_jax.report.result import device_name, git_commit
from dd_jax.store.atomic import write_atomically
from dd_jax.types import Split
from dd_jax.versions import versions


def cache_folder() -> pathlib.Path:
    """DD_JAX_CACHE, or dd_jax in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("DD_JAX_CACHE") or pathlib.Path(base) / "dd_jax")


def full_accuracy(data: Split, recipe: Recipe, *, seed: int, seeds: int = 1) -> float:
    """Accuracy of networks trained on all real data under the recipe's evaluation protocol.

    Args:
      data: the real set.
      recipe: whose protocol, normaliser and label kind are used.
      seed: of the networks.
      seeds: how many networks.

    Returns:
      Mean test accuracy as a fraction; from the cache where the same was computed before.
    """
    described = {
        "train": fingerprint(data.train), "test": fingerprint(data.test),
        "protocol": recipe.evaluation.plain(), "normaliser": recipe.normaliser.kind,
        "label_kind": recipe.label_kind, "label_scale": recipe.label_scale, "seed": seed,
        "seeds": seeds, "versions": versions(), "device": device_name(), "commit": git_commit(),
    }
    name = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]
    path = cache_folder() / "full" / f"{name}.json"
    try:
        return float(json.loads(path.read_text())["mean"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    tested = evaluate.evaluate_full(
        data, normaliser=recipe.normaliser, protocol=recipe.evaluation,
        key=jax.random.key(seed + 2), label_kind=recipe.label_kind, label_scale=recipe.label_scale,
        seeds=seeds,
    )
    text = json.dumps({"mean": tested.mean, "seconds": tested.seconds, **described})
    write_atomically(path, lambda file: file.write(text.encode()))
    return tested.mean
