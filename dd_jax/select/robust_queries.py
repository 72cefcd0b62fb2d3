"""Images to ask a teacher about, when some of its answers are wrong.

Image i gains g_i = 1 - margin_i where the answer is right and nothing where it is wrong, up to K
answers are wrong, and nobody knows which:

  max_q min_{|W| <= K} sum_{i not in W} q_i g_i     over probabilities q

The optimum has equal q_i g_i on the k largest gains and 0 elsewhere, and the best k is found by one
pass over the sorted gains:

  q_i = (1 / g_i) / sum_{j <= k} 1 / g_j     V(k) = (k - K) / sum_{j <= k} 1 / g_j

Where a wrong answer costs g_i instead of gaining nothing, 2 K stands in the place of K.

Source: Baykal et al., Robust Active Distillation, ICLR 2023; the closed form is derived here from
the game.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dd_jax.errors import ConfigError, require_probability, require_whole
from dd_jax.select.dynamic_scores import first_epochs
from dd_jax.select.memory import Bytes, Memory, Phase, Sizes, known_dynamics, of_numbers
from dd_jax.select.selector import Chosen, Selector
from dd_jax.types import RealData

LEAST_GAIN = 1e-6  # below it an image is never asked about: its probability would have no bound


def query_distribution(gains: Any, wrong: int) -> np.ndarray:
    """The probabilities with which images are asked about.

    Args:
      gains: [n], at least 0.
      wrong: K, answers that may be wrong.

    Returns:
      [n] float64 that sums to 1; 0 outside the best support. With wrong=0 it is the largest gain.

    Raises:
      ConfigError: a gain that is negative or not finite; not more gains above `LEAST_GAIN` than
        wrong answers, so that nothing is certain.

    Example:
      >>> query_distribution([0.5, 1.0, 0.1, 0.5], wrong=1).round(2).tolist()
      [0.4, 0.2, 0.0, 0.4]
    """
    require_whole("wrong", wrong, least=0, example=10)
    gains = np.asarray(gains, np.float64)
    if not (gains >= 0).all() or not np.isfinite(gains).all():
        raise ConfigError(f"gains are {gains.min():.3g} to {gains.max():.3g}, expected finite "
                          "numbers of at least 0", fix="pass 1 - margin")
    order = np.argsort(-gains, kind="stable")
    order = order[gains[order] >= LEAST_GAIN]
    if len(order) <= wrong:
        raise ConfigError(
            f"wrong is {wrong}, and {len(order)} images gain anything: all answers may be wrong",
            fix="pass a smaller one")
    inverse = 1 / gains[order]
    total, size = np.cumsum(inverse), np.arange(1, len(order) + 1)
    best = int(np.argmax((size - wrong) / total))
    found = np.zeros(len(gains))
    found[order[: best + 1]] = inverse[: best + 1] / total[best]
    return found


def drawn(gains: Any, valid: jax.Array, count: int, key: jax.Array, *, wrong: float) -> Chosen:
    """Draws distinct images by `query_distribution`, one after the other.

    Largest log q_i plus Gumbel noise first, which draws without replacement. Where the support has
    fewer images than are asked for, the others follow by their gains.

    Args:
      gains: [n].
      valid, count, key: as for `Selector.choose`.
      wrong: K as a share of the valid images, rounded down; less than gain anything.

    Returns:
      `Chosen`, weights 1.
    """
    places = np.flatnonzero(np.asarray(valid))
    held = np.asarray(gains, np.float64)[places]
    able = int(np.sum(held >= LEAST_GAIN))
    shares = np.zeros(len(held))
    if able:
        shares = query_distribution(held, min(int(wrong * len(held)), able - 1))
    noise = np.asarray(jax.random.gumbel(key, valid.shape), np.float64)[places]
    first, rest = np.flatnonzero(shares), np.flatnonzero(shares == 0)
    first = first[np.argsort(-np.log(shares[first]) - noise[first], kind="stable")]
    rest = rest[np.argsort(-held[rest], kind="stable")]
    rows = places[np.concatenate([first, rest])][:count]
    return Chosen(rows.astype(np.int32), np.ones(count, np.float32))


def robust_active(wrong: float = 0.1, *, until: int | None = None) -> Selector:
    """The selector of images to ask a teacher about, by the margins of a student.

    Args:
      wrong: K as a share of the images that are chosen from, in [0, 1).
      until: the student is that of so many epochs; None: of all.

    Raises:
      ConfigError: a share that cannot be; when used, too few epochs.

    Example:
      >>> robust_active().needs, robust_active().drawn
      (('dynamics',), True)
    """
    require_probability("wrong", wrong)
    if wrong == 1:
        raise ConfigError("wrong is 1: all answers may be wrong", fix="pass wrong=0.1")

    def scored(data: RealData, have: Mapping[str, Any], key: jax.Array) -> np.ndarray:
        margin = first_epochs(have["dynamics"], until).margin[:, -1]
        # Rounding may leave a margin above 1.
        return np.float32(np.maximum(1 - np.mean(margin, axis=0, dtype=np.float64), 0))

    def choose(gains: jax.Array, valid: jax.Array, count: int, key: jax.Array) -> Chosen:
        return drawn(gains, valid, count, key, wrong=wrong)

    def host(sizes: Sizes) -> Bytes:
        return {**known_dynamics(sizes), "distribution": 8 * 8 * sizes.group}

    return Selector(scored, choose, needs=("dynamics",), drawn=True,
                    memory=Memory(host, {"choice": Phase(of_numbers(2))}))
