"""Kinds of images by their loss trajectories: those of the probes that learn as they do.

  P(suite | i) = share of that suite in the k fitted probes nearest to tau_i

with tau_i = (loss after epoch 1, ..., loss after epoch E), by the Euclidean distance of raw
trajectories. A fitted probe is no neighbour of itself.

Source: Siddiqui et al., Metadata Archaeology, ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dd_jax.errors import require_whole, unknown
from dd_jax.select import rules
from dd_jax.select.memory import NUMBER, SORTED, Bytes, Memory, Phase, Sizes, of_numbers
from dd_jax.select.neighbours import nearest, neighbours_phase
from dd_jax.select.probes import CHANGED, NONE, SUITES, Probes
from dd_jax.select.selector import Selector, check_known
from dd_jax.types import RealData

SIDES = ("top", "bottom")
_BELOW_ALL = 3.0  # scores are -1 to 1.5


class Probed(NamedTuple):
    """One recorded training with probes among N images.

    Attributes:
      loss: after each of E epochs, [E, N] float32.
      probes: which images are probes.
    """

    loss: Any
    probes: Probes


def suite_shares(
    seen: Probed, neighbours: int = 20, *, block: int | None = None
) -> np.ndarray:
    """P(suite | image), [N, 5] float64 in the order of `SUITES`; rows sum to 1.

    Args:
      seen: the training.
      neighbours: k; as many as there are where fewer probes were planted.
      block: images whose distances are computed together; None: see `neighbours.block_of`.

    Example:
      >>> probes = Probes(np.array([0, 1, -1, -1]), np.array([True, True, False, False]))
      >>> suite_shares(Probed(np.float32([[1, 9, 2, 8]]), probes), 1)[2:, :2].tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    require_whole("neighbours", neighbours, example=20)
    tracks = np.ascontiguousarray(np.asarray(seen.loss).T)
    fitted = np.flatnonzero(seen.probes.fitted)
    own = np.full(len(tracks), NONE)
    own[fitted] = np.arange(len(fitted))
    count = min(neighbours, len(fitted) - 1)
    near = nearest(tracks, tracks[fitted], count, own=own, block=block)
    votes = np.asarray(seen.probes.suite)[fitted][near]
    return np.stack([(votes == number).mean(axis=1) for number in range(len(SUITES))], axis=1)


def probe_accuracy(seen: Probed, neighbours: int = 20) -> dict[str, float]:
    """How many probes that were not fitted are told as what they are, by suite and of "all".

    Example:
      >>> probes = Probes(np.array([0, 1, 0, 1]), np.array([True, True, False, False]))
      >>> probe_accuracy(Probed(np.float32([[1, 9, 2, 3]]), probes), 1)
      {'typical': 1.0, 'atypical': 0.0, 'all': 0.5}
    """
    suite = np.asarray(seen.probes.suite)
    held = np.flatnonzero((suite != NONE) & ~np.asarray(seen.probes.fitted))
    right = suite_shares(seen, neighbours)[held].argmax(axis=1) == suite[held]
    found = {name: float(right[suite[held] == number].mean())
             for number, name in enumerate(SUITES) if (suite[held] == number).any()}
    return {**found, "all": float(right.mean()) if len(right) else 0.0}


def likeness(
    seen: Probed, suite: str, neighbours: int = 20, *, block: int | None = None
) -> np.ndarray:
    """P(suite | image) less at most half a vote, which breaks ties, [N] float64.

    Of equal shares the image whose trajectory is nearer to the suite's mean comes first.
    """
    tracks, number = np.asarray(seen.loss, np.float64), SUITES.index(suite)
    members = np.asarray(seen.probes.fitted) & (np.asarray(seen.probes.suite) == number)
    far = np.linalg.norm(tracks - tracks[:, members].mean(axis=1, keepdims=True), axis=0)
    shares = suite_shares(seen, neighbours, block=block)
    return shares[:, number] - far / (1 + far) / (2 * neighbours)


def archaeology(
    suite: str = "typical", *, order: str = "top", neighbours: int = 20, block: int | None = None
) -> Selector:
    """The selector of images that learn as a suite of probes does.

    Args:
      suite: a name in `SUITES`, one that was planted.
      order: "top" takes what is most like the suite, "bottom" avoids it. Images that were changed
        into probes come last in both, since nothing is known of what they were.
      neighbours: k.
      block: as for `suite_shares`.

    Raises:
      ConfigError: an unknown name.

    Example:
      >>> archaeology("random_outputs", order="bottom").needs
      ('probed',)
    """
    if suite not in SUITES:
        raise unknown("suite", suite, SUITES)
    if order not in SIDES:
        raise unknown("order", order, SIDES)
    require_whole("neighbours", neighbours, example=20)
    changed = [SUITES.index(name) for name in CHANGED]

    def scored(data: RealData, have: Mapping[str, Any], key: jax.Array) -> np.ndarray:
        seen = have["probed"]
        check_known(np.asarray(seen.loss).T, data)
        score = likeness(seen, suite, neighbours, block=block) * (1 if order == "top" else -1)
        return np.float32(score - _BELOW_ALL * np.isin(seen.probes.suite, changed))

    def host(sizes: Sizes) -> Bytes:
        tracks = sizes.epochs * sizes.images
        return {"losses": 2 * NUMBER * tracks, "score": 2 * 8 * tracks,
                "votes": 8 * (neighbours + len(SUITES)) * sizes.images}

    # Of all images at most half are probes, of which half are fitted.
    distances = neighbours_phase(lambda sizes: max(1, sizes.images // 4),
                                 lambda sizes: sizes.epochs)
    return Selector(
        scored, rules.top, needs=("probed",),
        memory=Memory(host, {"score": distances, "choice": Phase(of_numbers(SORTED))}),
        blocked=lambda block: archaeology(suite, order=order, neighbours=neighbours, block=block))
