"""What a selection holds in memory, told before anything runs, and blocks that keep it in bounds.

A selector declares for each phase of its work which arrays it holds for n images, and what a row of
a block adds to them:

  bytes(b) = sum of the arrays + b x row,    b = min(usual block, (bound - sum) / row)

Every number is linear in the number of images. What is chosen does not depend on b.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dd_jax.errors import ConfigError, told

NUMBER = 4  # bytes of a float32 or an int32
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


class Sizes(NamedTuple):
    """What a selection's memory depends on.

    Attributes:
      images: N, of the real set.
      group: n, of the largest group that is chosen in, its padding included.
      largest: images of the largest class.
      count: images that one group chooses at most.
      classes: K.
      width: P, of features or of the last layer's input.
      networks, epochs: S and E, of the training that is looked at.
    """

    images: int
    group: int
    largest: int
    count: int = 1
    classes: int = 2
    width: int = 0
    networks: int = 1
    epochs: int = 1


Bytes = Mapping[str, int]


class Phase(NamedTuple):
    """One phase of a selection's work.

    Attributes:
      arrays: sizes -> bytes by name, of all that is held whatever the block.
      row: sizes -> bytes that each row of a block adds; 0 where there are no blocks.
      block: sizes -> rows of a block where memory is no matter.
    """

    arrays: Callable[[Sizes], Bytes]
    row: Callable[[Sizes], int] = lambda sizes: 0
    block: Callable[[Sizes], int] = lambda sizes: 0


class Memory(NamedTuple):
    """What a selector holds.

    Attributes:
      host: sizes -> bytes by name, of what is known of all images and of what it is made from.
      phases: name -> `Phase` on the device; one comes after the other.
    """

    host: Callable[[Sizes], Bytes]
    phases: Mapping[str, Phase]


class Held(NamedTuple):
    """The bytes of a selection, see `Memory`.

    Attributes:
      host: by name, held together.
      phases: name -> bytes by name on the device, the block's among them.
      blocks: name of the phase -> rows of its block.
    """

    host: Bytes
    phases: Mapping[str, Bytes]
    blocks: Mapping[str, int]

    @property
    def device(self) -> int:
        """Bytes of the phase that needs most."""
        return max((sum(held.values()) for held in self.phases.values()), default=0)

    def __str__(self) -> str:
        parts = [f"{name} {shown(sum(held.values()))} on the device ("
                 + ", ".join(f"{what} {shown(size)}" for what, size in held.items()) + ")"
                 for name, held in self.phases.items()]
        if self.host:
            parts.append(f"{shown(sum(self.host.values()))} on the host")
        return "; ".join(parts)


def shown(size: int) -> str:
    """Bytes in a few characters.

    Example:
      >>> shown(1_260_000), shown(4 * 10**9)
      ('1.3 MB', '4.0 GB')
    """
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def bytes_of(text: str | int) -> int:
    """A number of bytes as it is written: "4GB", "512 MiB", 1000000.

    Raises:
      ConfigError: it is none, or less than 1.

    Example:
      >>> bytes_of("4GB"), bytes_of("1.5 MiB"), bytes_of(100)
      (4000000000, 1572864, 100)
    """
    match = None if isinstance(text, bool) else _TEXT.fullmatch(str(text))
    size = 0
    if match is not None:
        unit = match[2].lower()
        scale = 1024 ** (1 + "kmgt".index(unit)) if match[3] and unit else _UNITS[unit]
        size = int(float(match[1]) * scale)
    if size < 1:
        raise ConfigError(f"memory is {told(text)}, expected a number of bytes",
                          fix="pass for example memory='4GB'")
    return size


def planned(memory: Memory, sizes: Sizes, bound: int) -> Held:
    """The bytes of a selection and its blocks, none of them larger than the bound leaves room for.

    Args:
      memory: of a selector.
      sizes: of the data and of what is looked at.
      bound: bytes that the device may hold at once.

    Raises:
      ConfigError: not even blocks of one row keep the bound.

    Example:
      >>> points = Phase(lambda s: {"features": 4 * s.group}, row=lambda s: 100,
      ...                block=lambda s: 256)
      >>> held = planned(Memory(lambda s: {}, {"choice": points}), Sizes(50, 50, 50), 1200)
      >>> held.blocks["choice"], held.device
      (10, 1200)
    """
    phases, blocks = {}, {}
    for name, phase in memory.phases.items():
        held, row = dict(phase.arrays(sizes)), phase.row(sizes)
        fixed = sum(held.values())
        if fixed + row > bound:
            raise ConfigError(
                f"memory is {shown(bound)}, and the {name} of {sizes.group} images holds "
                f"{shown(fixed + row)} at least", fix="allow more, choose within classes, or look "
                "at fewer images or features")
        if row:
            blocks[name] = max(1, min(phase.block(sizes), (bound - fixed) // row))
            held["block"] = blocks[name] * row
        phases[name] = held
    return Held(memory.host(sizes), phases, blocks)


def nothing(sizes: Sizes) -> Bytes:
    """Of what is not held on the host."""
    return {}


def known_features(sizes: Sizes) -> Bytes:
    """[N, P] on the host."""
    return {"features": NUMBER * sizes.images * sizes.width}


def known_gradients(sizes: Sizes) -> Bytes:
    """[N, K] and [N, P] on the host."""
    return {"gradients": NUMBER * sizes.images * (sizes.classes + sizes.width)}


def known_dynamics(sizes: Sizes) -> Bytes:
    """Six numbers and a flag of [S, E, N], and a score that is computed from them in float64."""
    size = sizes.networks * sizes.epochs * sizes.images
    return {"dynamics": (6 * NUMBER + 1) * size, "score": 2 * 8 * size}


def of_numbers(count: int) -> Callable[[Sizes], Bytes]:
    """So many numbers for each image of a group."""
    return lambda sizes: {"numbers": count * NUMBER * sizes.group}


def of_features(numbers: int, copies: int = 2) -> Callable[[Sizes], Bytes]:
    """The features of a group as given and as compared, and numbers for each image."""
    return lambda sizes: {"features": copies * NUMBER * sizes.group * sizes.width,
                          **of_numbers(numbers)(sizes)}


def of_gradients(numbers: int) -> Callable[[Sizes], Bytes]:
    """The gradients of a group as given and as compared, and numbers for each image."""
    return lambda sizes: {
        "gradients": 2 * NUMBER * sizes.group * (sizes.classes + sizes.width),
        "sums": 2 * NUMBER * sizes.classes * (sizes.width + 1), **of_numbers(numbers)(sizes)}


SORTED = 4  # numbers for each image where scores are sorted: keys and places, before and after


def of_scores(host: Callable[[Sizes], Bytes] = nothing) -> Memory:
    """Of a selector that sorts one number for each image."""
    return Memory(host, {"choice": Phase(of_numbers(SORTED))})
