"""DCC and DSAC: Dataset Condensation with Contrastive Signals (Lee et al., ICML 2022).

The gradients of all classes are averaged before they are matched, once, so that what distinguishes
classes counts; a warm-up matches class by class as DC and DSA do. DSAC is DCC with DSA's
augmentation.

Differs from the official code: as DC does, see `methods.dc`; CIFAR-100 is standardised with its own
mean and deviation (there with those of CIFAR-10).
"""

from __future__ import annotations

import dataclasses

from dd_jax.distill.recipe import Recipe
from dd_jax.errors import ConfigError
from dd_jax.methods import dc
from dd_jax.methods.record import Method, Published, require_positive
from dd_jax.objectives.matching import require_several_classes
from dd_jax.pools import InnerTrainedState
from dd_jax.types import RealData

_CITATION = (
    "S. Lee, S. Chun, S. Jung, S. Yun, S. Yoon. Dataset Condensation with Contrastive Signals. "
    "ICML 2022."
)
_LOOPS = {**dc.LOOPS, 1: (10, 5)}


@dataclasses.dataclass(frozen=True)
class DCC(dc.DC):
    """Settings of DCC: those of DC and of its warm-up; the defaults are the official ones.

    Attributes:
      warm_networks, warm_uses: matching is class by class in the first `warm_uses` steps of each of
        the first `warm_networks` networks; 0 of either for none.
    """

    uses: int = 10
    epochs: int = 5
    start: str = "real"
    warm_networks: int = 250
    warm_uses: int = 10


@dataclasses.dataclass(frozen=True)
class DSAC(DCC):
    """Settings of DSAC: those of DCC with DSA's augmentation."""

    augmentation: str = "dsa"
    evaluation_epochs: int = 1001


def official(ipc: int) -> DCC:
    """The settings of the official code."""
    return DCC(ipc=ipc, **dc.loops(ipc, _LOOPS))


def official_dsac(ipc: int) -> DSAC:
    """The settings of the official code for DSAC."""
    return DSAC(ipc=ipc, **dc.loops(ipc, _LOOPS))


def _cpu(config: DCC) -> DCC:
    small = dc.narrow(config, networks=50 if config.ipc == 1 else 25, uses=10,
                      epochs=5 if config.ipc == 1 else 10)
    return dataclasses.replace(small, warm_networks=6)


def cpu(ipc: int) -> DCC:
    """Settings for five minutes on two CPU cores."""
    return _cpu(official(ipc))


def cpu_dsac(ipc: int) -> DSAC:
    """Settings of DSAC for five minutes on two CPU cores."""
    return _cpu(official_dsac(ipc))


def recipe(config: DCC, data: RealData) -> Recipe:
    """DCC or DSAC as a composition of the library's parts, see `dc.matching_recipe`."""
    require_several_classes(data.spec.num_classes, "there is no contrast to match",
                            instead="use method 'dm'")
    for name in ("warm_networks", "warm_uses"):
        if getattr(config, name) != 0:
            require_positive(config, name)
    warm = config.warm_networks * config.warm_uses > 0
    if warm and (config.warm_uses > config.uses or config.warm_networks > config.networks):
        raise ConfigError(
            f"the warm-up of {config.warm_networks} networks and {config.warm_uses} uses is longer "
            f"than the run of {config.networks} and {config.uses}",
            fix="pass smaller warm_networks and warm_uses",
        )

    def warming_up(pool: InnerTrainedState):
        return (pool.renewals < config.warm_networks) & (pool.uses < config.warm_uses)

    return dc.matching_recipe(
        config, data, method="dsac" if isinstance(config, DSAC) else "dcc", citation=_CITATION,
        class_wise=warming_up if warm else False,
    )


_SOURCE = "DCC and DSAC, as tabulated in NCFM"
_TITLE = "Dataset Condensation with Contrastive Signals"
METHOD = Method(
    name="dcc",
    title=_TITLE,
    config=DCC,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("cifar10", 1): Published(32.9, 0.8, _SOURCE),
        ("cifar10", 10): Published(49.4, 0.5, _SOURCE),
        ("cifar10", 50): Published(61.6, 0.4, _SOURCE),
        ("cifar100", 1): Published(13.3, 0.3, _SOURCE),
        ("cifar100", 10): Published(30.6, 0.4, _SOURCE),
        ("cifar100", 50): Published(40.0, 0.3, _SOURCE),
    },
    citation=_CITATION,
)
DSAC_METHOD = Method(
    name="dsac",
    title=_TITLE + ", with DSA",
    config=DSAC,
    presets={"official": official_dsac, "cpu": cpu_dsac},
    recipe=recipe,
    published={
        ("cifar10", 1): Published(34.0, 0.7, _SOURCE),
        ("cifar10", 10): Published(54.5, 0.5, _SOURCE),
        ("cifar10", 50): Published(64.2, 0.4, _SOURCE),
        ("cifar100", 1): Published(14.6, 0.3, _SOURCE),
        ("cifar100", 50): Published(39.3, 0.4, _SOURCE),
    },
    citation=_CITATION,
)
