"""The nouns of dd_jax: plain records of arrays and of pure functions, in the style of optax.

Glossary of shapes used in every docstring:
  N  real images            M  synthetic images         K  classes
  H, W, C  height, width, channels                      B  images in a batch
  P  features per image     R  rows of the longest class

Images in *model space* are float32 and have been through the set's `Normaliser`;
real images are stored as uint8 and normalised inside the step that uses them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Optional, Protocol

import jax
import jax.numpy as jnp

PyTree = Any


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What is static about a real data set: hashable, so that it can be a jit constant.

    Attributes:
      name: a short name for files and tables, for example "fashion_mnist".
      shape: (H, W, C) of one image.
      num_classes: K.
      class_names: K names, only ever shown, never used in a path.
    """

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RealData:
    """A real labelled set that lives on the device and is sampled by row index inside jit.

    Attributes:
      images: [N, H, W, C] uint8, or float32 in [0, 1]; None for the index of a host-fed set.
      labels: [N] int32 in 0..K-1.
      class_rows: [K, R] int32, the rows of each class, padded by repeating them.
      class_counts: [K] int32, how many rows of `class_rows` are real.
      spec: the static description.

    Build one with `dd_jax.data.from_arrays` or `dd_jax.data.load`, which validate.
    """

    images: Optional[jax.Array]
    labels: jax.Array
    class_rows: jax.Array
    class_counts: jax.Array
    spec: DataSpec = dataclasses.field(metadata=dict(static=True))


class Split(NamedTuple):
    """A data set with its held-out part: `train` and `test` are `RealData` of one spec."""

    train: RealData
    test: RealData


class Batch(NamedTuple):
    """Real data that one step needs, already in model space.

    Attributes:
      images: [..., H, W, C] float32.
      labels: [...] int32.
      rows: [...] int32, where in the real set they were, or None where nobody asks.
    """

    images: jax.Array
    labels: jax.Array
    rows: Optional[jax.Array] = None


class HostStore(Protocol):
    """Arrays that stay on the host and are read by number, such as stored trajectories.

    Hashable by identity, since it is static where it travels through compiled functions.
    """

    def read(self, index: PyTree) -> PyTree:
        """NumPy arrays at `index`, a pytree of integers or int32 arrays."""

    def like(self, index: PyTree) -> PyTree:
        """The shapes and dtypes of what `read` would return, from those of `index`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HostRows:
    """What a step needs out of a store on the host, as int32 rows say which real images it needs.

    Attributes:
      index: what the store is asked for.
      store: where it is read.
    """

    index: PyTree
    store: HostStore = dataclasses.field(metadata=dict(static=True))


class SyntheticSet(NamedTuple):
    """What the outside world sees of a distilled set: plain arrays.

    What a network trains on is as said here. A `DistilledSet` may hold uint8 images and class
    numbers in their place; its `trainable` turns them into this.

    Attributes:
      images: [M, H, W, C] float32 in model space; class-major where an objective makes them.
      labels: [M, K] float32 targets; what they mean is recorded by the recipe.
      learning_rate: learned inner learning rate(s), [] or [T], or None.
      log_temperature: [] or None; where learned, class scores are exp(log_temperature) times the
        predictions before a softmax.
      weights: [M] float32, how much each image counts in a training, or None: all the same.
    """

    images: jax.Array
    labels: jax.Array
    learning_rate: Optional[jax.Array] = None
    log_temperature: Optional[jax.Array] = None
    weights: Optional[jax.Array] = None


class StoreSet(Protocol):
    """`Parameterization.init`: the stored form of a first set."""

    def __call__(self, key: jax.Array, start: SyntheticSet, /) -> PyTree:
        """Returns the params."""


class DecodeSet(Protocol):
    """`Parameterization.decode`: the set that the stored form stands for."""

    def __call__(self, params: PyTree, key: jax.Array, /) -> SyntheticSet:
        """Returns the set, differentiable in the learned leaves."""


class Parameterization(NamedTuple):
    """How a synthetic set is stored and learned.

    Attributes:
      init: (key, start: SyntheticSet) -> params.
      decode: (params, key) -> SyntheticSet; differentiable in the learned leaves.
      groups: (params) -> tree of str like `params`: the name of the optimizer group of each
        leaf ("images", "labels", ...); leaves in group "constant" are never updated.
      record: (kind, JSON-able arguments) by which a set's file can say how to decode its params,
        see `dd_jax.store.stored`; None where the file holds the images themselves.
    """

    init: StoreSet
    decode: DecodeSet
    groups: Callable[[PyTree], PyTree]
    record: Optional[tuple[str, Mapping[str, Any]]] = None


class Outputs(NamedTuple):
    """What a network returns.

    Attributes:
      logits: [B, K] float32.
      features: [B, P] float32, the flattened input of the last dense layer.
      taps: the activations at the end of each block, before its pooling, a tuple of [B, h, w, c].
      batch_stats: updated running statistics, or an empty dict where there are none.
    """

    logits: jax.Array
    features: jax.Array
    taps: tuple[jax.Array, ...] = ()
    batch_stats: PyTree = {}


class Network(NamedTuple):
    """An architecture as two pure functions.

    Attributes:
      init: (key) -> variables, a dict with "params" and, where used, "batch_stats".
      apply: (variables, images [B, H, W, C], train: bool = False) -> Outputs.
      name: for tables and file names.
      norm_inputs: (variables, images, train: bool = False) -> (Outputs, ((mean [c], variance [c]),
        ...)): beside what `apply` gives, the statistics of the input of every batch normalisation
        over batch and space, biased, in the order in which they run; an empty tuple where there is
        none. None for a network that cannot say.
    """

    init: Callable[[jax.Array], PyTree]
    apply: Callable[..., Outputs]
    name: str = "network"
    norm_inputs: Optional[Callable[..., tuple[Outputs, tuple]]] = None


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A positive semi-definite similarity of images, `kernel(x1, x2)` or `kernel(x)`.

    It can be called and jitted like the function that it is; `dataclasses.replace` varies one.

    Attributes:
      pair: (x1 [n1, H, W, C], x2 [n2, H, W, C]) -> [n1, n2], in the dtype of the images.
      gram: (x [n, H, W, C]) -> [n, n], equal to pair(x, x) but exactly symmetric and with exact
        self-similarities, also in float32.
      pair_bytes: (shape (H, W, C)) -> int, working memory that one pair needs in float32; decides
        the size of blocks.
      name: for tables and file names.
    """

    pair: Callable[[jax.Array, jax.Array], jax.Array]
    gram: Callable[[jax.Array], jax.Array]
    pair_bytes: Callable[[tuple[int, int, int]], int]
    name: str = "kernel"

    def __call__(self, x1: jax.Array, x2: jax.Array | None = None) -> jax.Array:
        return self.gram(x1) if x2 is None else self.pair(x1, x2)


class Init(Protocol):
    """`init` of a pool and of an objective: the state at the start."""

    def __call__(self, key: jax.Array, synthetic: SyntheticSet, /) -> PyTree:
        """Returns the state."""


class DrawNetwork(Protocol):
    """`Pool.draw`: the network of a step."""

    def __call__(self, state: PyTree, key: jax.Array, /) -> PyTree:
        """Returns the variables of a network."""


class AdvancePool(Protocol):
    """`Pool.advance`: the state after a step."""

    def __call__(
        self, state: PyTree, synthetic: SyntheticSet, key: jax.Array, /, *real: Batch
    ) -> PyTree:
        """Returns the next state; `real` is one batch for a pool that watches, else nothing."""


class Pool(NamedTuple):
    """Where the networks of one step come from.

    Attributes:
      init: (key, synthetic) -> state.
      draw: (state, key) -> variables of the network that this step uses.
      advance: (state, synthetic, key) -> state; trains, ages or replaces networks. A pool that
        watches takes a `Batch` of real images as a fourth argument.
      watches: whether it does, as `plateau_pool` and `restarting_pool` do.
    """

    init: Init
    draw: DrawNetwork
    advance: AdvancePool
    watches: bool = False


class DrawTransformations(Protocol):
    """`Augmentation.draw`: random transformations."""

    def __call__(self, key: jax.Array, count: int, /) -> PyTree:
        """Returns params with leading axis `count`."""


class ApplyTransformations(Protocol):
    """`Augmentation.apply`: images, transformed as was drawn."""

    def __call__(self, params: PyTree, images: jax.Array, /) -> jax.Array:
        """Returns images, differentiable in those that are given."""


class Augmentation(NamedTuple):
    """A random image transformation, with the draw apart from the application.

    Attributes:
      draw: (key, count: int) -> params with leading axis `count`; count 1 serves a whole batch
        (the same transformation for every image), count B one image each.
      apply: (params, images [B, H, W, C]) -> images; differentiable in the images.
    """

    draw: DrawTransformations
    apply: ApplyTransformations


class Loss(Protocol):
    """`Objective.loss`: what is minimised."""

    def __call__(
        self, synthetic: SyntheticSet, state: PyTree, batch: PyTree, key: jax.Array, /
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        """Returns a scalar and metrics, which are scalars, too."""


class Sample(Protocol):
    """`Objective.sample`: which real data a step needs."""

    def __call__(self, data: RealData, state: PyTree, key: jax.Array, /) -> PyTree:
        """Returns int32 rows, or `HostRows`, in any tree."""


class Advance(Protocol):
    """`Objective.advance`: the state after a step."""

    def __call__(
        self, synthetic: SyntheticSet, state: PyTree, batch: PyTree, key: jax.Array, /
    ) -> PyTree:
        """Returns a state of the same tree, shapes and dtypes."""


class Embed(Protocol):
    """`Objective.embed`: features of images by a network that the state stands for."""

    def __call__(self, state: PyTree, images: jax.Array, key: jax.Array, /) -> jax.Array:
        """Returns [B, P], without derivative."""


def no_state(key: jax.Array, synthetic: SyntheticSet) -> PyTree:
    """The `init` of an objective that keeps nothing from step to step."""
    return ()


def unchanged(synthetic: SyntheticSet, state: PyTree, batch: PyTree, key: jax.Array) -> PyTree:
    """The `advance` of an objective whose state stays as it is."""
    return state


def balanced_rows(data: RealData, state: PyTree, key: jax.Array) -> jax.Array:
    """The `sample` of an objective that does not say what it needs: about 256 rows.

    Returns:
      [K * max(1, 256 // K)] int32, as many of every class, class after class, drawn with
      replacement; classes have to have images.
    """
    classes = data.class_counts.shape[0]
    places = jax.random.uniform(key, (classes, max(1, 256 // classes)))
    places = (places * data.class_counts[:, None]).astype(jnp.int32)
    return jnp.take_along_axis(data.class_rows, places, axis=1).reshape(-1)


class Objective(NamedTuple):
    """A scalar pure function of the synthetic set; `jax.grad` of `loss` is the meta-gradient.

    Only `loss` is required: `Objective(loss)` has no state and sees a class-balanced batch.

    Attributes:
      loss: (synthetic, state, batch, key) -> (scalar, metrics dict of scalars), where `batch` is
        the `Batch` (or the same pytree of them) gathered at the rows of `sample`, with what a store
        gave in the places of `HostRows`.
      init: (key, synthetic) -> state.
      sample: (data: RealData, state, key) -> int32 rows, a pytree: which real data a step needs. Of
        a set that the host feeds it sees no images. `HostRows` among them are read from a store.
      advance: (synthetic, state, batch, key) -> state of the same tree, shapes and dtypes.
      embed: (state, images [B, H, W, C], key) -> [B, P], features by a network that the state
        stands for, without derivative; None for an objective without networks.
      turns: steps of one iteration, where classes or terms have theirs one after another.
      variants: what to change, such as "adjoint='recursive'" -> () -> the same objective by a
        derivative that needs less memory, on the same state; named where a step does not fit.
      bound: why the set's images have to stay as they are, if so ("each image has its own target"):
        they are then not mirrored, added to or grown.
      real: whether steps look at real images, which could be chosen.
    """

    loss: Loss
    init: Init = no_state
    sample: Sample = balanced_rows
    advance: Advance = unchanged
    embed: Optional[Embed] = None
    turns: int = 1
    variants: Mapping[str, Callable[[], Objective]] = MappingProxyType({})
    bound: str = ""
    real: bool = True
