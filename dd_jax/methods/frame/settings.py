"""What a method declares, and how the frame turns the declaration into a plan.

A method is a class of settings in a file of its own: fields with official values, presets (tables),
`needs` (what is computed from the real data first), `build` (the recipe's parts). The rest is here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any

from dd_jax import augment, nets
from dd_jax.backend import own_dtypes, refuse_forked
from dd_jax.data import Normaliser
from dd_jax.data.conventions import DIGITS, known_as
from dd_jax.distill.needs import normaliser_of
from dd_jax.distill.plan import Plan
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import ConfigError, require_whole, unknown
from dd_jax.evaluate.protocol import Protocol, protocol
from dd_jax.evaluate.settings import PlanSettings
from dd_jax.methods.families.budgets import evaluation_epochs
from dd_jax.methods.frame.fields import (
    Norm,
    Normalisation,
    Start,
    Views,
    Whole,
    check_fields,
)
from dd_jax.methods.frame.selected import NEED, check_any_start, rows_start, start_needs
from dd_jax.store.artefacts import Artefact
from dd_jax.synthetic import Labels, class_start, pixels
from dd_jax.types import Augmentation, DataSpec, Network, RealData, SyntheticSet


@typing.dataclass_transform(frozen_default=True)
class Settings:
    """The base of every method's declaration; subclasses are frozen dataclasses by themselves.

    A subclass may set, beside its fields:
      presets: protocol name -> table of changes by images per class. The entry of 0 always holds,
        then that of the largest published budget that is not above; a value may be a function of
        the budget. "official" is on top of the fields' defaults, every other one on top of
        "official", or of the one that its entry "over" names.
      for_data: name of data -> a table like these, on top of "official" for that data.
      fractional: whether `ipc` may be a fraction, because classes share what is stored.
      stages: in which its sets are made, see `distill.progressive`; `ipc` counts those of one.
      least_classes: how many classes it needs; 1 where each is matched by itself.
      title, citation: of a method outside the package; those inside are in papers.toml.

    Attributes:
      ipc: images per class.
    """

    presets: typing.ClassVar[Mapping[str, Mapping]] = {}
    for_data: typing.ClassVar[Mapping[str, Mapping]] = {}
    fractional: typing.ClassVar[bool] = False
    stages: typing.ClassVar[int] = 1
    least_classes: typing.ClassVar[int] = 2
    ipc: int = 1

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True)(cls)

    def images_per_class(self, data: RealData) -> float:
        """Images per class in one stage; `ipc`, unless other settings say how many."""
        return self.ipc

    def check(self, at: Site) -> None:
        """Refuses settings that contradict each other or the data, before anything is computed."""

    def needs(self, at: Site) -> Mapping[str, Artefact]:
        """What has to be computed from the real data first, see `distill.needs`."""
        return {}

    def told(self, at: Site) -> str:
        """What the user is told before anything runs, see `Plan.told`."""
        return ""

    def build(self, at: Site) -> Mapping[str, Any]:
        """Fields of the recipe; "objective", "optimizer" and "evaluation" at least."""
        raise NotImplementedError

    def finish(self, recipe: Recipe, at: Site) -> Recipe:
        """A combinator that is part of the method, such as `distill.flipped`."""
        return recipe

    def later(self, at: Site) -> Callable | None:
        """For plans whose artefacts start from networks of earlier stages, see `Plan.later`."""
        return None


dataclasses.dataclass(frozen=True)(Settings)


class Pixels(Settings):
    """Settings of a set that is stored image by image.

    Attributes:
      start: "real", "noise" or "class_means"; or chosen real images, by a name in
        `select.OF_FEATURES` such as "herding", which then looks at pixels.
      normaliser: a name in `data.normalisers`.
    """

    start: Start = "real"
    normaliser: Normalisation = "standardise"


class Whitened(Settings):
    """The same, whitened where images have colours.

    Attributes:
      start: "real", "noise" or "class_means"; or chosen real images, by a name in
        `select.OF_FEATURES` such as "herding", which then looks at pixels.
      normaliser: a name in `data.normalisers`; None: standardise grey images, whiten colour ones.
    """

    start: Start = "real"
    normaliser: Normalisation | None = None

    def whitening(self, spec: DataSpec) -> str:
        """The normaliser of colour images."""
        return "zca"


class ConvNets(Settings):
    """Settings of the ConvNets that a method looks through.

    Attributes:
      width, depth: channels and blocks; depth None follows the image size.
    """

    width: Whole = 128
    depth: Whole | None = None


class NormedConvNets(ConvNets):
    """The same with any normalisation.

    Attributes:
      norm: "instance", "batch", "layer", "group" or "none".
    """

    norm: Norm = "instance"


class Tested(Settings):
    """Settings of the networks that test the set.

    Attributes:
      augmentation: a name in `augment.by_name`, used when networks are trained on the set;
        for digits the one without a flip, such as "dsa_digits", is taken.
      flips: whether images may be mirrored; None: unless they are digits.
      evaluation_width, evaluation_epochs: their width, and the epochs that they are trained for;
        None: as many as have `families.budgets.evaluation_steps` steps.
      evaluation_steps: of the optimizer, in the place of epochs; None: as these say.
    """

    augmentation: Views = "dsa"
    flips: bool | None = None
    evaluation_width: Whole = 128
    evaluation_epochs: Whole | None = 1001
    evaluation_steps: Whole | None = None


@dataclasses.dataclass(frozen=True)
class Site:
    """What a declaration is given: the data, and the parts that most methods build from.

    Attributes:
      settings: the method's.
      data: the real training set.
      whitening: the normaliser as an artefact, for what needs it.
      have: name -> opened artefact; empty before they are there.
      memory: bytes that the device may hold at once, for what goes by blocks; None: all it has.
      kept: what settings have computed for this site, by name.
    """

    settings: Any
    data: RealData
    whitening: Artefact
    have: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    memory: int | None = None
    kept: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def spec(self) -> DataSpec:
        """The static description of the data."""
        return self.data.spec

    @property
    def classes(self) -> int:
        """K."""
        return self.spec.num_classes

    @property
    def colour(self) -> bool:
        """Whether images have more than one channel."""
        return self.spec.shape[-1] > 1

    @property
    def images(self) -> int:
        """How many images the set stores."""
        return round(self.settings.images_per_class(self.data) * self.classes, 6)

    @property
    def normaliser(self) -> Normaliser:
        """From stored images to model space; there once artefacts are."""
        return self.have["normaliser"]

    @functools.cached_property
    def depth(self) -> int:
        """Blocks of a ConvNet: the setting, or as many as end at 4x4 maps."""
        return default_depth(self.spec, getattr(self.settings, "depth", None))

    def rows(self, count: int) -> int:
        """`count`, or as many real images as there are."""
        return min(count, self.data.labels.shape[0])

    def convnet(self, **options) -> Network:
        """The ConvNet of the settings."""
        given = {"depth": self.depth, "width": self.settings.width,
                 "norm": getattr(self.settings, "norm", "instance"), **options}
        return nets.convnet(self.spec, **given)

    def views(self, name: str | None = None) -> str:
        """The name of an augmentation, or the settings', without a flip where images must not."""
        name, flips = name or self.settings.augmentation, getattr(self.settings, "flips", None)
        if flips is None:
            flips = known_as(self.spec.name) not in DIGITS
        return name if flips else augment.table.WITHOUT_FLIP.get(name, name)

    def augmentation(self, name: str | None = None) -> Augmentation:
        """The augmentation of that name, or of the settings; see `views`."""
        return augment.by_name(self.views(name), self.spec.shape)

    def start(self, kind: str = "one_hot", **options) -> Callable[..., SyntheticSet]:
        """The start that the settings name, with hard labels of that kind."""
        if NEED in self.have:
            return rows_start(self.have[NEED].rows, self.normaliser, kind=kind, **options)
        return class_start(getattr(self.settings, "start", "real"), normaliser=self.normaliser,
                           ipc=self.settings.ipc, kind=kind, **options)

    def protocol(self, name: str, **options) -> Protocol:
        """The test of the set: the settings' width, length and augmentation, and `options`."""
        usual = {"depth": self.depth}
        for field, setting in (("width", "evaluation_width"), ("norm", "norm")):
            if hasattr(self.settings, setting):
                usual[field] = getattr(self.settings, setting)
        if hasattr(self.settings, "augmentation"):
            usual["augmentation"] = self.views()
        if hasattr(self.settings, "evaluation_epochs"):
            usual["epochs"] = evaluation_epochs(
                self.settings, images_per_class=self.images / self.classes,
                shown=self.images * getattr(self.settings, "factor", 1) ** 2,
                batch_size=options.get("batch_size", PlanSettings.batch_size))
        return protocol(name, **{**usual, **options})


def default_depth(spec: DataSpec, given: int | None = None) -> int:
    """Blocks of a ConvNet that end at 4x4 maps: 3 for 28 and 32 pixels, 4 for 64, 5 for 128.

    Where a number is given, that one.

    Example:
      >>> default_depth(DataSpec("toy", (28, 28, 1), 2, ("a", "b")))
      3
    """
    if given is not None:
        return given
    height, width, channels = spec.shape
    side = min(height, width) + (4 if channels == 1 else 0)
    return max(1, round(math.log2(max(side, 4) / 4)))


def preset(
    kind: type[Settings], protocol: str, ipc: float, *, data: str = "", **changes
) -> Settings:
    """The settings of a protocol, a budget and data of that name, with single fields changed.

    Raises:
      ConfigError: unknown protocol or field, ipc that cannot be.
    """
    name = method_name(kind)
    if not isinstance(protocol, str) or protocol not in kind.presets:
        raise unknown(f"protocol of {name}", protocol, kind.presets)
    check_budget(kind, ipc)
    fields = [field.name for field in dataclasses.fields(kind)]
    for change in changes:
        if change not in fields:
            raise unknown(f"setting of {name}", change, fields)
    return kind(**{**_preset(kind, protocol, ipc, data), "ipc": ipc, **changes})


def check_budget(kind: type[Settings], ipc: Any) -> None:
    """Raises ConfigError if the method cannot have so many images per class."""
    if not kind.fractional:
        require_whole("ipc", ipc)
    elif not isinstance(ipc, (int, float)) or isinstance(ipc, bool) or not 0 < ipc < math.inf:
        raise ConfigError(f"ipc is {ipc!r}, expected a number above 0", fix="pass ipc=0.5")


def _preset(kind: type[Settings], protocol: str, ipc: float, data: str) -> dict[str, Any]:
    table = kind.presets[protocol]
    if protocol == "official":
        return {**_of_budget(table, ipc), **_of_budget(kind.for_data.get(data, {}), ipc)}
    return {**_preset(kind, table.get("over", "official"), ipc, data), **_of_budget(table, ipc)}


def _of_budget(table: Mapping[Any, Any], ipc: float) -> dict[str, Any]:
    """What a table of changes says for so many images per class."""
    budgets = [budget for budget in table if budget != "over" and 0 < budget <= ipc]
    chosen = {**table.get(0, {}), **(table[max(budgets)] if budgets else {})}
    return {name: value(ipc) if callable(value) else value for name, value in chosen.items()}


def method_name(kind: type[Settings]) -> str:
    """The name of a method: of its file, or what its class says."""
    return kind.__dict__.get("name") or kind.__module__.rsplit(".", 1)[-1].rstrip("_")


@own_dtypes()
def plan_of(
    settings: Settings, data: RealData, *, citation: str = "", memory: int | None = None
) -> Plan:
    """A method's declaration as a plan: checked, with defaults filled in.

    Args:
      settings: of the method.
      data: the real training set.
      citation: of the recipe.
      memory: see `Site`.

    Raises:
      ConfigError: a setting that cannot be.
      DataError: classes without the images that the start asks for.
    """
    refuse_forked()
    check_budget(type(settings), settings.ipc)
    check_fields(settings)
    _check_classes(settings, data)
    if hasattr(settings, "start"):
        check_any_start(settings.start, data, settings.ipc)
    site = Site(settings, data, normaliser_of(_normaliser_name(settings, data), data),
                memory=memory)
    settings.check(site)
    needs = {"normaliser": site.whitening, **settings.needs(site)}
    needs |= start_needs(getattr(settings, "start", ""), data, settings.ipc, site.whitening,
                         memory=memory)
    later = settings.later(site)
    made = {name: need.value for name, need in needs.items() if need.make is None}
    plain, told = dataclasses.asdict(settings), settings.told(site)
    still = {name: need for name, need in needs.items() if need.make is not None}

    def build(have: Mapping[str, Any]) -> Recipe:
        return _recipe(settings, dataclasses.replace(site, have={**made, **have}), citation)

    def later_plan(start, note):
        changed = {**still, **later(start, note)}
        return Plan(changed, build, later_plan, plain)

    return Plan(still, build, None if later is None else later_plan, plain, settings.stages, told)


def _check_classes(settings: Settings, data: RealData) -> None:
    count = data.spec.num_classes
    if count < settings.least_classes:
        raise ConfigError(
            f"the data has {count} class, expected at least {settings.least_classes}: "
            f"{method_name(type(settings))} tells classes apart",
            fix="pass data of several classes, or choose method 'dm'")


def _normaliser_name(settings: Settings, data: RealData) -> str | None:
    name = getattr(settings, "normaliser", "standardise")
    if name is None and data.spec.shape[-1] > 1:
        return settings.whitening(data.spec)
    return name or "standardise"


@own_dtypes()
def _recipe(settings: Settings, site: Site, citation: str) -> Recipe:
    fields = dict(settings.build(site))
    labels = fields.setdefault("labels", Labels())
    if "start" not in fields:
        fields["start"] = site.start(labels.kind, scale=labels.scale)
    usual = {
        "method": method_name(type(settings)), "settings": dataclasses.asdict(settings),
        "parameterization": pixels(labels="fixed"), "normaliser": site.normaliser,
        "steps": getattr(settings, "steps", 0),
    }
    fields["notes"] = {"citation": citation, **fields.get("notes", {})}
    return settings.finish(Recipe(**{**usual, **fields}), site)
