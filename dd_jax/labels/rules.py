"""Rules of the gradient, for `train.fit(gradient=...)`, of losses that are more than one loss.

Each builds (network, epoch) -> (variables, images, targets, weights [B], images before the views)
-> (gradient, variables). The network is an extended one, see `nets.extended`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_at_least_zero, require_whole
from dd_jax.labels.losses.hard_views import (
    LIMITS,
    affine_views,
    augmenter_loss,
    hardest_view,
)
from dd_jax.labels.losses.terms import SMALLEST, soft_term
from dd_jax.labels.losses.two_heads import dual_head
from dd_jax.labels.supervision import Supervision, Views
from dd_jax.nets import with_batch_stats
from dd_jax.types import Augmentation, Network, PyTree

Teacher = Callable[[jax.Array], jax.Array]


def aligned_heads(
    *, temperature: float = 2.0, hard: float = 1.0, soft: float = 1.0, head: str = "head"
) -> Callable:
    """Dual-Head KD with its gradients aligned on the weights that both heads share.

    Where <g_kd, g_ce> < 0 over all shared weights, g_kd loses its part along g_ce; then both are
    added. Heads keep their own gradients. Targets are `Told`.

    Args:
      temperature, hard, soft: of `dual_head`.
      head: name of the student's own head in its parameters.

    Returns:
      A rule for `fit`.

    Raises:
      ConfigError: where it is used, a student without a head of this name.
    """

    def of_network(network: Network, epoch: jax.Array) -> Callable:
        def rule(variables, images, told, weights, plain):
            params = variables["params"]
            if head not in params["network"]:
                raise ConfigError(f"the student has no parameters {head!r}, but "
                                  f"{sorted(params['network'])}", fix="pass head=...")

            def both(params):
                outputs = network.apply({**variables, "params": params}, images, True)
                losses = (dual_head(outputs, told, temperature=temperature, hard=hard, soft=0.0),
                          dual_head(outputs, told, temperature=temperature, hard=0.0, soft=soft))
                return jnp.stack([_mean(loss, weights) for loss in losses]), outputs

            values, pull, outputs = jax.vjp(both, params, has_aux=True)
            (by_labels,), (by_teacher,) = map(pull, jnp.eye(2, dtype=values.dtype))
            shared = _aligned(*(_without(g["network"], head) for g in (by_teacher, by_labels)))
            added = jax.tree.map(jnp.add, by_teacher, by_labels)
            turned = jax.tree.map(jnp.add, shared, _without(by_labels["network"], head))
            gradient = {**added, "network": {**turned, head: added["network"][head]}}
            return gradient, with_batch_stats(variables, outputs)

        return rule

    return of_network


def hard_affine(
    teacher: Teacher, *, disagree: float = 1.0, same: float = 1.0, temperature: float = 1.0
) -> Callable:
    """HARD's two players: the student follows the teacher on views, the augmenter moves them.

    The network is extended by `hard_views.affine_ranges`; targets are those of `view_draws`. Both
    gradients are taken at one point and one optimizer takes both steps, where the paper alternates.

    Args:
      teacher: images [B, H, W, C] -> logits [B, K], without running statistics to update.
      disagree, same: lambda_s and lambda_t of `augmenter_loss`.
      temperature: of both losses.

    Returns:
      A rule for `fit`.

    Raises:
      ConfigError: a weight below 0.
    """
    require_at_least_zero("disagree", disagree, example=1.0)
    require_at_least_zero("same", same, example=1.0)

    def of_network(network: Network, epoch: jax.Array) -> Callable:
        def rule(variables, images, draws, weights, plain):
            noise = jax.random.uniform(jax.random.wrap_key_data(draws),
                                       (len(images), len(LIMITS)), minval=-1.0)
            params = variables["params"]
            told = teacher(images)

            def student(part, views):
                params = {"network": part, "extra": variables["params"]["extra"]}
                return network.apply({**variables, "params": params}, views, True)

            def follows(part):
                views = affine_views(params["extra"]["raw"], noise, images)
                outputs = student(part, views)
                return _mean(soft_term(outputs.logits, teacher(views), temperature),
                             weights), outputs

            def disagrees(extra):
                views = affine_views(extra["raw"], noise, images)
                loss = augmenter_loss(student(params["network"], views).logits, teacher(views),
                                      told, disagree=disagree, same=same, temperature=temperature)
                return _mean(loss, weights)

            by_network, outputs = jax.grad(follows, has_aux=True)(params["network"])
            gradient = {"network": by_network, "extra": jax.grad(disagrees)(params["extra"])}
            return gradient, with_batch_stats(variables, outputs)

        return rule

    return of_network


def hardest_of(
    teacher: Teacher, augmentation: Augmentation, *, views: int = 4, limit: float = 0.1,
    temperature: float = 1.0,
) -> Callable:
    """HARD without an augmenter: the student follows the teacher on the hardest of m random views.

    The student is any network. It chooses by its running statistics and trains by those of the
    batch of chosen views. Targets are those of `view_draws`.

    Args:
      teacher: images [B, H, W, C] -> logits [B, K].
      augmentation: which views are drawn.
      views: m.
      limit, temperature: of `hardest_view`.

    Returns:
      A rule for `fit`.

    Raises:
      ConfigError: no views, a limit below 0.
    """
    require_whole("views", views, example=4)
    require_at_least_zero("limit", limit)

    def of_network(network: Network, epoch: jax.Array) -> Callable:
        def rule(variables, images, draws, weights, plain):
            count = len(images)
            drawn = augmentation.draw(jax.random.wrap_key_data(draws), views * count)
            seen = augmentation.apply(drawn, jnp.concatenate([images] * views))
            said = teacher(seen).reshape(views, count, -1)
            ours = network.apply(variables, seen).logits.reshape(views, count, -1)
            best = hardest_view(ours, said, teacher(images), limit=limit,
                                temperature=temperature)
            place = best * count + jnp.arange(count)
            chosen, told = seen[place], said.reshape(views * count, -1)[place]

            def loss(params):
                outputs = network.apply({**variables, "params": params}, chosen, True)
                return _mean(soft_term(outputs.logits, told, temperature), weights), outputs

            gradient, outputs = jax.grad(loss, has_aux=True)(variables["params"])
            return gradient, with_batch_stats(variables, outputs)

        return rule

    return of_network


def view_draws() -> Supervision:
    """The supervision of HARD's rules: what the views of a step are drawn from.

    Example:
      >>> views = Views(None, None, None, None, jax.random.key(3))
      >>> view_draws().targets((), views).dtype.name
      'uint32'
    """
    return Supervision(_Draws(), _no_loss)


@dataclasses.dataclass(frozen=True)
class _Draws:
    def __call__(self, arrays: PyTree, views: Views) -> jax.Array:
        return jax.random.key_data(views.key)


def _no_loss(logits: jax.Array, targets: PyTree) -> jax.Array:
    raise ConfigError("draws of views are no targets of a loss",
                      fix="pass a rule of labels.rules to fit(gradient=...)")


def _without(tree: dict, name: str) -> dict:
    return {key: value for key, value in tree.items() if key != name}


def _aligned(gradient: PyTree, along: PyTree) -> PyTree:
    """`gradient` without its part along -`along`, all leaves taken as one vector."""
    def inner(a, b):
        return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))

    share = jnp.minimum(inner(gradient, along), 0.0)
    share = share / jnp.maximum(inner(along, along), SMALLEST**2)
    return jax.tree.map(lambda g, a: g - share * a, gradient, along)


def _mean(losses: jax.Array, weights: jax.Array) -> jax.Array:
    """sum w l / sum w; 0 where all weights are."""
    count = jnp.sum(weights)
    return jnp.sum(weights * losses) / jnp.where(count > 0, count, 1.0)
