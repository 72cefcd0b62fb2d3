"""Every method on data at the edge of what there is: one step is finite, or a typed refusal.

Run as a program it goes over all methods and kinds of data, which takes half an hour, or those that
are named: `python -m tests.faults.degenerate [--methods dm,frepo] [--kinds "4x4,one class"]`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

import dd_jax as dd
from dd_jax.errors import DDJaxError, RunStopped
from tests.methods import tiny


def as_they_are(images):
    """The images."""
    return images


class Kind(NamedTuple):
    """One kind of data.

    Attributes:
      classes, per_class, shape: of random pixels.
      largest: of classes of unequal size, from 1 image on, in the place of `per_class`.
      change: (images) -> images.
      x64: whether JAX is told to take float64 for what it is not told.
    """

    classes: int = 2
    per_class: int = 16
    shape: tuple[int, int, int] = (8, 8, 1)
    change: Callable = as_they_are
    x64: bool = False
    largest: int | None = None

    def sizes(self) -> np.ndarray:
        """Images of each class."""
        if self.largest is None:
            return np.full(self.classes, self.per_class)
        return np.geomspace(1, self.largest, self.classes).round().astype(int)


KINDS = {
    "one class": Kind(classes=1),
    "two classes": Kind(),
    "a hundred classes": Kind(classes=100, per_class=2),
    "unequal classes": Kind(classes=100, largest=1000),
    "constant images": Kind(change=lambda x: np.full_like(x, 127)),
    "all zeros": Kind(change=np.zeros_like),
    "duplicates": Kind(change=lambda x: np.broadcast_to(x[:1], x.shape)),
    "one image a class": Kind(per_class=1),
    "4x4": Kind(shape=(4, 4, 1)),
    "27x32x3": Kind(shape=(27, 32, 3)),
    "float64": Kind(x64=True),
    "faint images": Kind(change=lambda x: np.float32(x / 255e4)),
}


def data_of(kind: Kind):
    """The real set of a kind."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(kind.classes), kind.sizes()))
    images = kind.change(rng.integers(0, 256, (len(labels), *kind.shape), np.uint8))
    return dd.data.from_arrays(images, labels, num_classes=kind.classes)


def one_step(recipe):
    """The recipe with as few steps as it can have."""
    return dataclasses.replace(recipe, steps=min(recipe.steps, 1))


def outcome(method: str, kind: str) -> str:
    """"finite", "refused: ..." by a typed error, or "FAULT: ..."."""
    switch = jax.enable_x64(True) if KINDS[kind].x64 else contextlib.nullcontext()
    losses = []
    with switch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = data_of(KINDS[kind])
            plan = tiny.plan(method, data, **tiny.UNTAUGHT.get(method, {})).then(one_step)
            done = dd.distill(plan, data, show_progress=False, log_every=1, callbacks=[
                lambda step, metrics: losses.append(metrics["loss"])])
        except RunStopped:
            raise
        except DDJaxError as error:
            return f"refused: {type(error).__name__}: {error}"
        except Exception as error:
            return f"FAULT: {type(error).__name__}: {error}"
    values = (losses, done.synthetic.images, done.synthetic.labels)
    good = all(np.isfinite(np.asarray(x, np.float64)).all() for x in values)
    return "finite" if good else "FAULT: not finite"


def main() -> int:
    """Prints a line for each case; 1 where there is a fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--methods", default=",".join(sorted(dd.methods.METHODS)))
    parser.add_argument("--kinds", default=",".join(KINDS))
    asked = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DD_JAX_ARTEFACTS"] = folder
        for kind in asked.kinds.split(","):
            for method in asked.methods.split(","):
                start = time.perf_counter()
                found = outcome(method, kind)
                faults += found.startswith("FAULT")
                seconds = time.perf_counter() - start
                print(f"{kind:18} {method:18} {seconds:5.1f} s  {found[:160]}", flush=True)
            jax.clear_caches()
    print(f"{faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
