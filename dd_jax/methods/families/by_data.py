"""What authors publish for single data sets: the table `for_data` of each method that has one.

By the name of the data and by images per class, on top of the method's "official", see
`frame.Settings`; what holds for all data stands in the method's own file.
"""

from __future__ import annotations

from typing import Any

# The whitening of the authors: raw pixels, a constant beside the eigenvalues.
ZCA = "zca_absolute"


def row(
    inner_steps: int, span: int, max_start: int, image_rate: float, rate_rate: float,
    rate: float = 0.01, *, normaliser: str = "standardise", **others: Any,
) -> dict[str, Any]:
    """A row of the tables in which authors of trajectory methods publish their settings.

    Args:
      inner_steps, span, max_start, image_rate, rate_rate, rate, normaliser: see
        `families.trajectory.Trajectories`.
      **others: more settings by name.
    """
    return dict(inner_steps=inner_steps, span=span, max_start=max_start, image_rate=image_rate,
                rate_rate=rate_rate, rate=rate, normaliser=normaliser, **others)


MTT = {
    "cifar10": {1: dict(normaliser=ZCA), 50: {}},
    "cifar100": {1: row(20, 3, 20, 1000.0, 1e-5, normaliser=ZCA),
                 10: row(20, 2, 20, 1000.0, 1e-5),
                 50: row(80, 2, 40, 1000.0, 1e-5, normaliser=ZCA, batch_size=125)},
    "tiny_imagenet": {1: row(10, 2, 10, 1e4, 1e-4),
                      10: row(20, 2, 40, 1e4, 1e-4, batch_size=200),
                      50: row(20, 2, 40, 1e4, 1e-4, batch_size=300)},
}

TESLA = {
    **MTT,
    "cifar10": {10: dict(normaliser=ZCA), 50: {}},
    "cifar100": {**MTT["cifar100"],
                 50: row(80, 2, 40, 500.0, 1e-5, normaliser=ZCA, batch_size=125)},
    "imagenet": {1: row(10, 3, 10, 5000.0, 1e-4, batch_size=100, soft_labels=True,
                        expert_count=50)},
}

FTD = {
    "cifar10": {1: dict(normaliser=ZCA)},
    "cifar100": {
        1: row(40, 3, 20, 1000.0, 1e-5, normaliser=ZCA, share=1.0, average=0.9995),
        10: row(20, 2, 40, 1000.0, 1e-5, normaliser=ZCA, share=1.0, average=0.9995),
        50: row(80, 2, 40, 1000.0, 1e-5, normaliser=ZCA, share=1.0, average=0.999,
                batch_size=1000)},
    "tiny_imagenet": {
        1: row(30, 2, 10, 1e4, 1e-4, share=1.0, average=0.999),
        10: row(20, 2, 40, 1e4, 1e-4, share=1.0, average=0.999, batch_size=500)},
}

ATT = {
    "cifar10": {1: dict(normaliser=ZCA), 50: {}},
    "cifar100": {
        1: row(50, 4, 20, 500.0, 1e-5, normaliser=ZCA, average=0.9995, steps=3000),
        10: row(20, 2, 40, 1000.0, 1e-5, average=0.9995, steps=200_000),
        50: row(80, 2, 40, 1000.0, 1e-5, normaliser=ZCA, average=0.999, steps=100_000,
                batch_size=1200)},
    "tiny_imagenet": {
        1: row(30, 2, 10, 1e4, 1e-4, average=0.999, steps=10_000),
        10: row(20, 2, 40, 1e4, 1e-5, 1e-4, average=0.999, steps=80_000)},
}

AST = {
    "cifar10": {1: dict(normaliser=ZCA)},
    "cifar100": {1: row(20, 3, 20, 1000.0, 1e-5, normaliser=ZCA),
                 10: row(20, 2, 30, 1000.0, 1e-5, batch_size=128),
                 50: row(80, 2, 40, 1000.0, 1e-5, batch_size=700)},
    "tiny_imagenet": {1: row(10, 2, 10, 1e4, 1e-4)},
}


def _datm(*numbers: float, **others: Any) -> dict[str, Any]:
    """A row of DATM: whitened, from epoch 0 on without growth, unless said."""
    usual = dict(batch_size=None, label_rate=10.0, threshold=1.0, min_start=0, first_max_start=None,
                 growth_steps=0)
    return row(*numbers, **{**usual, **others}, normaliser=ZCA)


DATM = {
    "cifar10": {1: dict(normaliser=ZCA)},
    "cifar100": {
        1: _datm(40, 3, 20, 1000.0, 1e-5, first_max_start=10, growth_steps=1000),
        10: _datm(80, 2, 50, 1000.0, 1e-5, batch_size=1000, first_max_start=30, growth_steps=2000),
        50: _datm(80, 2, 70, 1000.0, 1e-5, batch_size=1000, min_start=20),
        100: _datm(80, 2, 70, 50.0, 1e-5, batch_size=1000, min_start=30)},
    "tiny_imagenet": {
        1: _datm(40, 2, 20, 1e4, 1e-4, first_max_start=15, growth_steps=2000),
        10: _datm(40, 2, 50, 100.0, 1e-4, batch_size=500, min_start=10),
        50: _datm(20, 2, 70, 100.0, 1e-4, batch_size=1000, min_start=40)},
}

# Of each of five stages.
PDD = {
    "cifar10": {1: dict(normaliser=ZCA)},
    "cifar100": {1: row(20, 3, 20, 1000.0, 1e-5, normaliser=ZCA),
                 10: row(20, 2, 20, 1000.0, 1e-5, normaliser=ZCA, batch_size=512)},
    "tiny_imagenet": {1: row(20, 2, 20, 1e4, 1e-4, batch_size=64, expert_epochs=24)},
}

# On sets of many classes, of which an inner step takes a part.
_MANY = dict(per_class=1, classes=50, labels="learned", image_rate=3e-4, label_rate=3e-4,
             normaliser="standardise")

RAT_BPTT = {
    "cifar100": {
        1: dict(window=90, inner_steps=130, window_mode="last", labels="learned",
                image_rate=3e-4, label_rate=3e-4),
        10: dict(window=100, inner_steps=300, per_class=1, labels="learned")},
    "tiny_imagenet": {1: dict(window=100, inner_steps=300, **_MANY, batch_size=1000)},
    "imagenet": {1: dict(window=80, inner_steps=280, window_mode="last", **_MANY,
                         batch_size=1500)},
}


def patches(rows: int, columns: int) -> dict[str, Any]:
    """Patches along the sides of PoDD's published posters, which are for 0.9 images per class."""
    return dict(rows=lambda ipc: rows if ipc == 0.9 else None,
                columns=lambda ipc: columns if ipc == 0.9 else None)


PODD = {
    "cifar100": {0: dict(patches(20, 20), patch_batch=50, batch_size=2000, window=100,
                         inner_steps=300, labels="learned")},
    "tiny_imagenet": {0: dict(patches(20, 40), patch_batch=30, batch_size=500, window=100,
                              inner_steps=300, labels="learned", depth=3, inner_rate=5e-4,
                              image_rate=5e-4, label_rate=5e-4)},
}
