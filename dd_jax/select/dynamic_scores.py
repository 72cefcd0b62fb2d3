"""Scores of images from training dynamics: the harder an image, the larger its score.

With S networks, E epochs, loss l, p = exp(-l) and c whether the label was right, of image i:

  EL2N, GraNd, margin, entropy, least confidence    mean over networks, after the last epoch
  forgetting    mean_s #{e: c_e = 1, c_{e+1} = 0}, E for a network that never learned it
  confidence    1 - mean_s mean_e p                 variability   mean_s std_e p
  correctness   1 - mean_s mean_e c

Counts have ties; of equal ones the image of lower mean p comes first.

Sources: Paul, Ganguli and Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021; Toneva et al., An
Empirical Study of Example Forgetting, ICLR 2019; Coleman et al., Selection via Proxy, ICLR 2020;
Swayamdipta et al., Dataset Cartography, EMNLP 2020 (deviations with ddof 0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np

from dd_jax.errors import ConfigError, require_whole
from dd_jax.select.dynamics import Dynamics
from dd_jax.select.memory import known_dynamics, of_scores
from dd_jax.select.selector import Selector
from dd_jax.select.selectors import by_rule
from dd_jax.types import RealData

_TIE = 1e-3  # of a count, by which the mean probability breaks ties


def _last(values: np.ndarray) -> np.ndarray:
    """[N], the mean over networks after the last epoch."""
    return values[:, -1].mean(axis=0, dtype=np.float64)


def probability(seen: Dynamics) -> np.ndarray:
    """[S, E, N] of the label."""
    return np.exp(-np.asarray(seen.loss, np.float64))


def forgetting(seen: Dynamics) -> np.ndarray:
    """[N], how often the label was right after one epoch and wrong after the next."""
    right = np.asarray(seen.correct)
    events = np.sum(right[:, :-1] & ~right[:, 1:], axis=1)
    events = np.where(right.any(axis=1), events, right.shape[1])
    return events.mean(axis=0) + _TIE * (1 - probability(seen).mean(axis=(0, 1)))


def correctness(seen: Dynamics) -> np.ndarray:
    """[N], how often the label was wrong, as a share of the epochs."""
    share = probability(seen).mean(axis=(0, 1))
    wrong = 1 - np.asarray(seen.correct).mean(axis=(0, 1))
    return wrong + _TIE / wrong.size * (1 - share)


# name -> (what the score is, the least number of epochs that it makes sense of)
SCORES: Mapping[str, tuple[Callable[[Dynamics], np.ndarray], int]] = {
    "el2n": (lambda seen: _last(seen.error), 1),
    "grand": (lambda seen: _last(seen.gradient), 1),
    "margin": (lambda seen: -_last(seen.margin), 1),
    "entropy": (lambda seen: _last(seen.entropy), 1),
    "least_confidence": (lambda seen: 1 - _last(seen.largest), 1),
    "forgetting": (forgetting, 2),
    "confidence": (lambda seen: 1 - probability(seen).mean(axis=(0, 1)), 1),
    "variability": (lambda seen: probability(seen).std(axis=1).mean(axis=0), 2),
    "correctness": (correctness, 1),
}


def first_epochs(seen: Dynamics, until: int | None) -> Dynamics:
    """The same of the first epochs only; None for all.

    Raises:
      ConfigError: more epochs than were recorded.
    """
    if until is None:
        return seen
    require_whole("until", until, example=10)
    if until > seen.loss.shape[1]:
        raise ConfigError(f"until is {until}, and {seen.loss.shape[1]} epochs were recorded",
                          fix="record more epochs, or pass a smaller one")
    return jax.tree.map(lambda x: x[:, :until], seen)


def check_epochs(score: str, epochs: int) -> None:
    """Refuses fewer epochs than a score makes sense of.

    Raises:
      ConfigError: as said.
    """
    if epochs < SCORES[score][1]:
        raise ConfigError(f"{score} of {epochs} epoch compares epochs, expected at least "
                          f"{SCORES[score][1]}", fix="record more epochs")


def of_dynamics(score: str, *, order: str = "top", until: int | None = None) -> Selector:
    """The selector of a score of training dynamics.

    Args:
      score: a name in `SCORES`.
      order: "top" takes the largest scores, which are the hardest images, "bottom" the smallest,
        and "middle" a window between.
      until: scores look at the first epochs only; None: at all.

    Raises:
      ConfigError: an unknown order; when used, too few epochs.

    Example:
      >>> sorted(SCORES)[:3], of_dynamics("el2n").needs
      (['confidence', 'correctness', 'el2n'], ('dynamics',))
    """
    def scored(data: RealData, have, key: jax.Array) -> np.ndarray:
        seen = first_epochs(have["dynamics"], until)
        check_epochs(score, seen.loss.shape[1])
        return np.asarray(SCORES[score][0](seen), np.float32)

    return Selector(scored, by_rule(order), needs=("dynamics",), memory=of_scores(known_dynamics))
