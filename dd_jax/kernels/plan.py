"""From a list of layers to stages with their offsets, by walking it backwards.

The layouts that result are explained in `docs/kernels.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dd_jax.errors import ConfigError
from dd_jax.kernels.layers import Layer
from dd_jax.kernels.offsets import band, cyclic, every, pooled_values
from dd_jax.kernels.places import Grid

READ_OUTS = ("flatten", "global_average_pool")


class Stage(NamedTuple):
    """Convolutions and rectifiers on one grid of positions, then perhaps a pool.

    Attributes:
      layers: the `Layer`s, "conv" and "relu" only.
      pooled: whether a 2x2 average pool ends the stage.
    """

    layers: tuple[Layer, ...]
    pooled: bool


class Program(NamedTuple):
    """A checked list of layers.

    Attributes:
      stages: what comes before the read-out.
      read_out: "flatten" or "global_average_pool".
      head: "dense" and "relu" layers after it.
    """

    stages: tuple[Stage, ...]
    read_out: str
    head: tuple[Layer, ...]

    @property
    def plain(self) -> bool:
        """Whether the images are flattened at once, so that positions play no part."""
        return self.read_out == "flatten" and self.stages == (Stage((), False),)

    @property
    def rectifiers(self) -> int:
        """How many rectifiers there are."""
        return sum(layer.op == "relu" for stage in self.stages for layer in stage.layers) + sum(
            layer.op == "relu" for layer in self.head
        )


def parse(layers: Sequence[Layer]) -> Program:
    """Checks a list of layers and cuts it into stages.

    Raises:
      ConfigError: a layer is in a place where it has no meaning.

    Example:
      >>> from dd_jax.kernels.layers import average_pool, conv, dense, flatten, relu
      >>> program = parse([conv(), relu(), average_pool(), conv(), relu(), flatten(), dense()])
      >>> [(len(stage.layers), stage.pooled) for stage in program.stages]
      [(2, True), (2, False)]
    """
    layers = tuple(layers)
    for number, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise ConfigError(
                f"layer {number} is {layer!r}, expected a Layer",
                fix="build it with conv(), relu(), average_pool(), flatten() or dense()",
            )
    ends = [i for i, layer in enumerate(layers) if layer.op in READ_OUTS]
    if len(ends) != 1:
        raise ConfigError(
            f"the list has {len(ends)} read-outs, expected exactly one",
            fix="put one flatten() or global_average_pool() before the dense layers",
        )
    body, head = layers[: ends[0]], layers[ends[0] + 1 :]
    _allow(body, ("conv", "relu", "average_pool"), "before")
    _allow(head, ("dense", "relu"), "after")
    stages, current = [], []
    for layer in body:
        if layer.op == "average_pool":
            stages.append(Stage(tuple(current), True))
            current = []
        else:
            current.append(layer)
    return Program((*stages, Stage(tuple(current), False)), layers[ends[0]].op, head)


def _allow(layers: Sequence[Layer], ops: tuple[str, ...], where: str) -> None:
    for layer in layers:
        if layer.op not in ops:
            raise ConfigError(
                f"a {layer.op} layer stands {where} the read-out, expected one of {', '.join(ops)}",
                fix="flatten() or global_average_pool() separates images from features",
            )


def grids(program: Program, shape: tuple[int, int]) -> tuple[Grid, ...]:
    """The offsets of each stage for images of H x W positions.

    Raises:
      ConfigError: an image is too small for the pools.
    """
    sizes = [tuple(shape)]
    for _ in program.stages[:-1]:
        sizes.append(tuple(n // 2 for n in sizes[-1]))
    if min(sizes[-1]) < 1:
        pools = len(program.stages) - 1
        raise ConfigError(
            f"images of {shape[0]}x{shape[1]} pixels are too small for {pools} pools of 2x2",
            fix=f"use images of at least {2**pools} pixels a side, or a smaller depth",
        )
    if program.read_out == "global_average_pool":
        kinds = [every if stage.pooled else cyclic for stage in program.stages]
        return tuple(Grid(kind(h), kind(w)) for kind, (h, w) in zip(kinds, sizes))
    reach, found = 0, []
    for stage, (h, w) in zip(program.stages[::-1], sizes[::-1]):
        reach = 2 * reach + 1 if stage.pooled else reach
        found.append(Grid(band(h, reach), band(w, reach)))
    return tuple(found[::-1])


def state_elements(places: tuple[Grid, ...]) -> int:
    """Numbers that one pair keeps between tiles: the largest result of a pool, in four parts."""
    sizes = [len(pooled_values(y)) * len(pooled_values(x)) * y.size * x.size for y, x in places]
    return max(sizes[:-1], default=0)


def variances_program(program: Program) -> Program:
    """The shortest program that contains every rectifier of `program`.

    Only its variances are wanted, so it ends in a flatten read-out wherever it can: far fewer
    pairs of positions than a global average pool needs.
    """
    if any(layer.op == "relu" for layer in program.head):
        return program
    stages = list(program.stages)
    while len(stages) > 1 and not any(layer.op == "relu" for layer in stages[-1].layers):
        stages.pop()
    return Program((*stages[:-1], Stage(stages[-1].layers, False)), "flatten", ())
