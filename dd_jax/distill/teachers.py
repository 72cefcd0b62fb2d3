"""Teachers that anybody can ask for: any network, trained on the real images, with its accuracy.

A committee is several of them: other seeds or other networks, each an artefact of its own, whose
opened pairs (network, variables) `labels.committee` takes.
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dd_jax import augment, nets
from dd_jax.data import Normaliser, fingerprint, normalise, normalisers
from dd_jax.data.conventions import DIGITS, known_as
from dd_jax.distill.needs import architecture
from dd_jax.errors import (
    ConfigError,
    DataError,
    DDJaxError,
    require_at_least_zero,
    require_kind,
    require_probability,
    require_whole,
    unknown,
)
from dd_jax.evaluate.checks import check_split
from dd_jax.evaluate.evaluate import test_accuracy
from dd_jax.evaluate.optimizers import optimizer_of
from dd_jax.evaluate.settings import OptimizerSettings
from dd_jax.run.networks import STATE, train_network
from dd_jax.store.arrays import read_arrays, read_card, write_arrays
from dd_jax.store.artefacts import Artefact, ArtefactStore, Entry, damaged
from dd_jax.store.trajectories import normaliser_digest
from dd_jax.train import augmented
from dd_jax.types import DataSpec, Network, PyTree, RealData, Split

KIND = "tested_teacher"
_FILE = "teacher.safetensors"
_OPTIONS = ("width", "depth", "norm")


class Teacher(NamedTuple):
    """A trained network and what has to be known before it teaches.

    Attributes:
      network, variables: the pair that teaches.
      name: of the network in `nets.NETWORKS`.
      accuracy: share of the test images that it classifies rightly.
      spec: of the data that it was trained on.
      normaliser: SHA-256 of the normaliser that its images go through.
    """

    network: Network
    variables: PyTree
    name: str
    accuracy: float
    spec: DataSpec
    normaliser: str


# name -> (shape, black in model space) -> the light augmentation of a training.
LIGHT: Mapping[str, Callable] = MappingProxyType({
    "none": lambda shape, black: None,
    "shift": lambda shape, black: _shifted(shape, black, flip=False),
    "shift_flip": lambda shape, black: _shifted(shape, black, flip=True),
})


def _shifted(shape: tuple[int, int, int], black: jax.Array, *, flip: bool):
    return augment.views(shape, padding=max(1, min(shape[:2]) // 8), flip=flip, fill=black)


@dataclasses.dataclass(frozen=True)
class Training:
    """How a teacher is trained: by cross-entropy to the labels, with a rate that falls by a cosine.

    Attributes:
      epochs, batch_size: every image once in each epoch.
      optimizer: "sgd" (momentum 0.9), "adam" or "adamw".
      learning_rate: at its peak, after a twentieth of the steps.
      weight_decay: of "sgd" and "adamw".
      augmentation: "none", "shift" by up to an eighth of a side, "shift_flip" (and mirrored).
      cutmix: probability that a batch is cut and mixed; a teacher of mixed images is a worse one.
    """

    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    augmentation: str = "shift_flip"
    cutmix: float = 0.0

    def __post_init__(self):
        require_whole("epochs", self.epochs, example=20)
        require_whole("batch_size", self.batch_size, example=128)
        if self.augmentation not in LIGHT:
            raise unknown("augmentation of a teacher", self.augmentation, LIGHT)
        require_probability("cutmix", self.cutmix)
        for name in ("learning_rate", "weight_decay"):
            require_at_least_zero(name, getattr(self, name))
        self.settings(1)

    def settings(self, steps: int) -> OptimizerSettings:
        """Of the optimizer, for so many steps."""
        return OptimizerSettings(
            self.optimizer, float(self.learning_rate), weight_decay=float(self.weight_decay),
            schedule="warmup_cosine", warmup=steps // 20, final_fraction=0.0)


# What of a training is another one's for a network without normalisation, or of attention.
USUAL: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    "mlp": {"learning_rate": 0.05}, "alexnet": {"learning_rate": 0.01},
    "vit_tiny": {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05},
})


def teacher(
    name: str, data: Split, *, width: int | None = None, depth: int | None = None,
    norm: str | None = None, normaliser: Normaliser | str = "published", seed: int = 0,
    **training: Any,
) -> Artefact:
    """A network trained on the real images and tested, as an artefact.

    Args:
      name: of the network in `nets.NETWORKS`.
      data: the real set; the test part gives its accuracy.
      width, depth, norm: of the network, its own by default; but the normalisation is that of
        batches wherever it can be.
      normaliser: that its images go through, or a name in `data.normalisers`: it has to be that of
        the set whose students it teaches.
      seed: of the training; others make a committee.
      **training: fields of `Training` that differ from its defaults and from `USUAL`.

    Returns:
      An `Artefact` that opens as a `Teacher`. A training that was stopped goes on where it was.

    Raises:
      ConfigError: a name or a value that cannot be, or that the network does not take.
      DataError: test data without images.

    Example:
      >>> from dd_jax.data import load_embedded
      >>> teacher("resnet18", load_embedded(), width=8, epochs=3).settings["training"]["epochs"]
      3
    """
    check_split(data)
    if data.test.labels.shape[0] == 0:
        raise DataError("the test data has 0 images, expected at least 1", fix="pass all of it")
    spec = data.train.spec
    options, network = _network(name, spec, dict(width=width, depth=depth, norm=norm))
    usual = dict(USUAL.get(name, {}))
    if known_as(spec.name) in DIGITS:
        usual["augmentation"] = "shift"
    plan = _training({**usual, **training})
    if isinstance(normaliser, str):
        normaliser = normalisers(normaliser, data.train)
    require_kind("normaliser", normaliser, Normaliser, expected="a Normaliser or its name",
                 fix="pass that of the set, distilled.normaliser")
    settings = {
        **architecture(network), "name": name, "options": options,
        "training": dataclasses.asdict(plan), "normaliser": normaliser_digest(normaliser),
        "shape": list(spec.shape), "classes": list(spec.class_names),
        "test": fingerprint(data.test)}

    def make(train: RealData, key: jax.Array, folder: pathlib.Path, have, show_progress=None):
        variables = _trained(folder, network, train, plan, normaliser, key, show_progress)
        accuracy = jax.jit(lambda v, test, n: test_accuracy(network, v, test, n))(
            variables, data.test, normaliser)
        write_arrays(folder / _FILE, variables, {"kind": KIND, "accuracy": float(accuracy)})
        (folder / STATE).unlink(missing_ok=True)

    def stand_in() -> Teacher:
        like = jax.eval_shape(network.init, jax.random.key(0))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        return Teacher(network, zeros, name, 1.0, spec, settings["normaliser"])

    return Artefact(KIND, settings, make, lambda folder: _open(folder, network, settings, spec),
                    seed=seed, stand_in=stand_in)


def _training(fields: Mapping[str, Any]) -> Training:
    known = {field.name for field in dataclasses.fields(Training)}
    for field in fields:
        if field not in known:
            raise unknown("setting of a teacher's training", field, known)
    return Training(**fields)


def _network(
    name: str, spec: DataSpec, asked: Mapping[str, Any]
) -> tuple[dict[str, Any], Network]:
    """(the options that are not the network's own defaults, the network)."""
    if not isinstance(name, str) or name not in nets.NETWORKS:
        raise unknown("network", name, nets.NETWORKS)
    takes = inspect.signature(nets.NETWORKS[name]).parameters
    asked = {option: value for option, value in asked.items() if value is not None}
    for option in asked:
        if option not in takes:
            raise ConfigError(f"{name} has no {option}", fix=f"leave out {option}")
    if "norm" in takes:
        asked.setdefault("norm", "batch")
    options = {option: value for option, value in asked.items() if value != takes[option].default}
    return options, nets.by_name(name, spec, **options)


def _trained(
    folder: pathlib.Path, network: Network, data: RealData, plan: Training,
    normaliser: Normaliser, key: jax.Array, show_progress: bool | None,
) -> PyTree:
    shape, size = data.spec.shape, data.labels.shape[0]
    black = normalise(normaliser, jnp.zeros(shape))
    per_epoch = -(-size // min(size, plan.batch_size))
    optimizer = optimizer_of(plan.settings(plan.epochs * per_epoch), plan.epochs, per_epoch)
    views = augmented(LIGHT[plan.augmentation](shape, black), mix=plan.cutmix)
    return train_network(
        folder, network, data, normaliser=normaliser, key=key, epochs=plan.epochs,
        batch_size=plan.batch_size, optimizer=optimizer, views=views,
        show_progress=show_progress)


def _open(
    folder: pathlib.Path, network: Network, settings: Mapping[str, Any], spec: DataSpec
) -> Teacher:
    like = jax.eval_shape(network.init, jax.random.key(0))
    variables = jax.tree.map(jnp.asarray, read_arrays(folder / _FILE, like))
    accuracy = read_card(folder / _FILE).get("accuracy")
    if not (isinstance(accuracy, float) and 0.0 <= accuracy <= 1.0):
        raise damaged(folder, "its accuracy is no share of the test images")
    return Teacher(network, variables, settings["name"], accuracy, spec, settings["normaliser"])


def stored_teacher(store: ArtefactStore, name: str) -> Teacher:
    """A teacher out of a store by its name there, whatever data it was trained on.

    Args:
      store: that holds it.
      name: "tested_teacher-" and its address, or the address alone.

    Raises:
      CheckpointError: there is none of that name, or it is damaged.
      ConfigError: an artefact of another kind.
    """
    if "-" not in name:
        name = f"{KIND}-{name}"
    folder, entry = store.find(name)
    if not name.startswith(f"{KIND}-"):
        raise ConfigError(f"{name} is no {KIND}, which alone has a tested accuracy",
                          fix="make one: python -m dd_jax prepare teacher")
    spec, network = _described(folder, entry)
    return _open(folder, network, entry.settings, spec)


def _described(folder: pathlib.Path, entry: Entry) -> tuple[DataSpec, Network]:
    """The data and the network that a manifest tells of."""
    told = entry.settings
    try:
        shape, classes = tuple(told["shape"]), tuple(told["classes"])
        good = (len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)
                and classes and all(isinstance(c, str) for c in classes)
                and isinstance(told["normaliser"], str) and set(told["options"]) <= set(_OPTIONS))
        if not good:
            raise ValueError("of another form")
        spec = DataSpec(entry.data, shape, len(classes), classes)
        return spec, _network(told["name"], spec, told["options"])[1]
    except (KeyError, TypeError, ValueError, DDJaxError) as error:
        raise damaged(folder, f"its settings are no teacher's ({error})") from error
