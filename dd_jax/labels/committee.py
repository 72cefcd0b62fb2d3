"""Several teachers at once: their mean as what a student is told, weighed for all or by image.

Source: Shen and Savvides, MEAL V2, 2020, for the mean of probabilities. Weights by image are this
library's own forms of what mixtures of teachers do: whoever is right, or agrees, counts more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_above_zero, require_kind, told, unknown
from dd_jax.labels.live import TOLD, check_mode, look, told_to
from dd_jax.labels.losses import Loss, cross_entropy
from dd_jax.labels.supervision import Supervision, Views, tempered
from dd_jax.types import Network, PyTree

AVERAGES = ("probabilities", "logits")
Weigh = Callable[[jax.Array, Views], jax.Array]


@dataclasses.dataclass(frozen=True)
class ByLabel:
    """Weights by how well a teacher knows an image's own label y [B, K]:

      w_m = softmax_m( sum_k y_k log p_m,k / temperature )

    Attributes:
      temperature: above 0; at a large one all count the same.
    """

    temperature: float = 1.0

    def __post_init__(self):
        require_above_zero("temperature", self.temperature, example=1.0, why="weights divide by it")

    def __call__(self, logits: jax.Array, views: Views) -> jax.Array:
        """[B, M], of logits [M, B, K]."""
        labels = jnp.asarray(views.labels)
        if jnp.issubdtype(labels.dtype, jnp.integer):
            labels = jax.nn.one_hot(labels, logits.shape[-1])
        known = jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)
        return jax.nn.softmax(known.T / self.temperature)


@dataclasses.dataclass(frozen=True)
class ByAgreement:
    """Weights by how similar a teacher's probabilities are to the mean q of all of them:

      w_m = softmax_m( cos(p_m, q) / temperature )

    Attributes:
      temperature: above 0; at a large one all count the same.
    """

    temperature: float = 0.1

    def __post_init__(self):
        require_above_zero("temperature", self.temperature, example=0.1, why="weights divide by it")

    def __call__(self, logits: jax.Array, views: Views) -> jax.Array:
        """[B, M], of logits [M, B, K]."""
        shares = jax.nn.softmax(logits)
        mean = jnp.mean(shares, axis=0)
        norms = jnp.linalg.norm(shares, axis=-1) * jnp.linalg.norm(mean, axis=-1)
        return jax.nn.softmax((jnp.sum(shares * mean, axis=-1) / norms).T / self.temperature)


@dataclasses.dataclass(frozen=True)
class _Committee:
    """The mean of several networks, of which the arrays are (variables, weights [M] or None)."""

    networks: tuple[Network, ...]
    temperature: float
    average: str
    mode: str
    told: str
    weigh: Weigh | None

    def __call__(self, arrays: PyTree, views: Views) -> PyTree:
        found = [look(network, variables, views.images, mode=self.mode)
                 for network, variables in zip(self.networks, arrays[0])]
        if len({logits.shape for logits in found}) > 1:
            raise ConfigError(f"the teachers have {[z.shape[-1] for z in found]} classes, expected "
                              "all the same", fix="leave out the one that was trained on others")
        logits = jnp.stack(found)
        weights = arrays[1] if self.weigh is None else self.weigh(logits, views).T
        mean = averaged(logits, weights, self.average, self.temperature)
        return TOLD[self.told](mean, views.labels, self.temperature)


def averaged(
    logits: jax.Array, weights: jax.Array, average: str = "probabilities", temperature: float = 1.0
) -> jax.Array:
    """Logits of a committee's mean, up to a constant: softmax(result / T) is what it says.

    "probabilities": T log sum_m w_m softmax(z_m / T); "logits": sum_m w_m z_m.

    Args:
      logits: z, [M, B, K].
      weights: w, [M] or [M, B], which sum to 1 over M.
      average: one of `AVERAGES`.
      temperature: T.

    Returns:
      [B, K].

    Example:
      >>> two = jnp.log(jnp.array([[[0.5, 0.5]], [[0.9, 0.1]]]))
      >>> jnp.exp(averaged(two, jnp.array([0.5, 0.5]))).round(3).tolist()
      [[0.7..., 0.3...]]
    """
    weights = weights[..., None] if weights.ndim == 2 else weights[:, None, None]
    if average == "logits":
        return jnp.sum(weights * logits, axis=0)
    logs = jax.nn.log_softmax(logits / temperature)
    return temperature * jax.nn.logsumexp(logs, axis=0, b=weights)


def committee(
    members: Sequence[tuple[Network, PyTree]],
    *,
    weights: Sequence[float] | Weigh | None = None,
    temperature: float = 1.0,
    average: str = "probabilities",
    loss: Loss = cross_entropy,
    mode: str = "running",
) -> Supervision:
    """Several teachers that look at the same views: targets are their mean.

    As `teacher` of one network: where the loss is a plain function of probabilities, the student's
    logits are divided by the temperature, too. A loss that is told logits has its own temperature,
    and `temperature` then says at which probabilities are averaged: pass the same.

    Args:
      members: (network, variables) of each.
      weights: one number for each, at least 0, which are divided by their sum; `ByLabel`,
        `ByAgreement` or another (logits [M, B, K], views) -> [B, M]; all the same by default.
      temperature: T, above 0.
      average: "probabilities": mean of softmax(z / T); "logits": softmax of the mean of z / T.
      loss: (student's logits, targets) -> [B], as for `teacher`.
      mode: batch normalisation by "running" statistics or those of the "batch".

    Returns:
      A `Supervision`.

    Raises:
      ConfigError: no members, or weights, a temperature, a name or a loss that cannot be; where it
        is used, members of several numbers of classes.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> two = [(network, network.init(jax.random.key(seed))) for seed in (0, 1)]
      >>> told = committee(two, weights=(3, 1), temperature=4.0)
      >>> views = Views(jnp.ones((3, 2, 2, 1)), None, None, None, None)
      >>> told.targets(told.arrays, views).sum(axis=1).round(3).tolist()
      [1.0, 1.0, 1.0]
    """
    members = _checked(members)
    require_above_zero("temperature", temperature, why="logits are divided by it", example=1.0)
    check_mode(mode)
    if average not in AVERAGES:
        raise unknown("average", average, AVERAGES)
    asked = told_to(loss)
    weigh = weights if callable(weights) else None
    shares = None if weigh else jnp.asarray(_shares(weights, len(members)), jnp.float32)
    temperature = float(temperature)
    targets = _Committee(tuple(network for network, _ in members), temperature, average, mode,
                         asked, weigh)
    by = tempered(loss, temperature) if asked in ("probabilities", "free") else loss
    return Supervision(targets, by, (tuple(variables for _, variables in members), shares))


def _checked(members: Sequence[tuple[Network, PyTree]]) -> list[tuple[Network, PyTree]]:
    require_kind("members", members, Sequence, expected="[(network, variables), ...]",
                 fix="pass a list of pairs")
    members = list(members)
    for member in members:
        good = isinstance(member, (tuple, list)) and len(member) == 2
        if not (good and isinstance(member[0], Network)):
            raise ConfigError(f"a member is {told(member)}, expected (network, variables)",
                              fix="pass a list of pairs")
    if not members:
        raise ConfigError("a committee has no members", fix="pass one teacher at least")
    return [tuple(member) for member in members]


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """Numbers that sum to 1."""
    values = [1.0] * count if weights is None else [float(w) for w in weights]
    good = len(values) == count and all(0.0 <= w < math.inf for w in values) and sum(values) > 0
    if not good:
        raise ConfigError(f"weights are {values}, expected {count} numbers of at least 0, not all "
                          "0", fix=f"pass {count} weights, or leave them out")
    return [w / sum(values) for w in values]
