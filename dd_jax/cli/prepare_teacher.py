"""`python -m dd_jax prepare teacher`: train teachers on the real data and test them."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from dd_jax.cli.options import parse, with_help
from dd_jax.cli.own_data import load_data
from dd_jax.cli.tables import print_table
from dd_jax.distill.expected import expected
from dd_jax.distill.plan import store_beside
from dd_jax.distill.taught import check_accuracy
from dd_jax.distill.teachers import Training, teacher
from dd_jax.errors import require_seed, require_whole

_TRAINING = tuple(field.name for field in dataclasses.fields(Training))


@dataclasses.dataclass(frozen=True)
class PrepareTeacher:
    """Options of `prepare teacher`.

    Attributes:
      data: "embedded", "fashion_mnist", "tfds:NAME", or a folder or file of your own.
      size: of images from class folders of your own, which are cropped and resized to it: a side in
        pixels, or HEIGHTxWIDTH.
      channels: of such images, 1 or 3; by default 1 where all of them are grey.
      test_share: of data of your own without a test part, the share of each class that is kept for
        testing; by default 0.2.
      class_names: of an .npz file or a folder of idx files, comma-separated in label order.
      network: its name: convnet, resnet18, wrn16_2, ...; several, comma-separated, make a
        committee.
      width, depth, norm: of the network, its own by default; but normalised by batches.
      normaliser: that images go through; it has to be that of the sets whose students it teaches.
      seed: of the training.
      committee: so many teachers of each network, of this seed and those after it.
      epochs, batch_size, optimizer, learning_rate, weight_decay, augmentation, cutmix: of the
        training; by default those that are usual for the network.
      strict: end with an error where a teacher is below the accuracy of its kind.
      artefacts: folder of what is made once; by default DD_JAX_ARTEFACTS, or runs/artefacts.
    """

    data: str = "embedded"
    size: str | None = None
    channels: int | None = None
    test_share: float | None = None
    class_names: str | None = None
    network: str = "convnet"
    width: int | None = None
    depth: int | None = None
    norm: str | None = None
    normaliser: str = "published"
    seed: int = 0
    committee: int = 1
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    augmentation: str | None = None
    cutmix: float | None = None
    strict: bool = False
    artefacts: pathlib.Path | None = None


def run(words: Sequence[str]) -> int:
    """Parses the words after `prepare teacher` and does it; returns the exit code."""
    options = parse(with_help(PrepareTeacher), words, program="python -m dd_jax prepare teacher",
                    description="Train a network on the real data and test it, as a teacher.")
    require_whole("committee", options.committee, example=3)
    require_seed("seed", options.seed)
    require_seed("seed", options.seed + options.committee - 1)
    data, store = load_data(options), store_beside(options.artefacts, None)
    training = {name: getattr(options, name) for name in _TRAINING
                if getattr(options, name) is not None}
    asked = [teacher(name.strip(), data, width=options.width, depth=options.depth,
                     norm=options.norm, normaliser=options.normaliser, seed=seed, **training)
             for name in options.network.split(",")
             for seed in range(options.seed, options.seed + options.committee)]
    print(f"{len(asked)} on {data.train.spec.name}, in {store.folder}", file=sys.stderr)
    rows = []
    try:
        for each in asked:
            found = store.get(each, data.train)
            least, _ = expected(found.name, found.spec.name, found.spec.num_classes)
            rows.append((found.name, f"{100 * found.accuracy:.1f}", f"{100 * least:.1f}",
                         store.report[-1].name))
            check_accuracy(found, strict=options.strict)
    finally:
        if rows:
            print_table(("teacher", "accuracy", "should reach", "artefact"), rows)
    return 0
