"""BD-KD online: a student and its teacher learn together, each from labels and from the other.

With probabilities p_s, p_t at temperature T, entropies H, and y the labels:

  student  CE(z_s, y) + T^2 ( a KL(p_t || p_s) + b KL(p_s || p_t) )
  teacher  CE(z_t, y) + T^2 KL(p_t || p_s)

where b = delta for images of which the student is the flatter one, H(p_s) > H(p_t), a = delta where
the teacher is, and the other weight is 1. Weights, and the other network's outputs, are constants.

Differs from the paper, whose code is not public: which direction keeps the teacher near its student
is not said there; it is the one that is reversed for the teacher, its own probabilities first.

Source: Amara et al., BD-KD: Balancing the Divergences for Online Knowledge Distillation, 2022.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.errors import require_above_zero
from dd_jax.nets import with_batch_stats
from dd_jax.types import Network, Outputs, PyTree

_PARTS = ("student", "teacher")


def pair(student: Network, teacher: Network) -> Network:
    """Two networks as one, which looks at images with both.

    Its logits, features and statistics are the student's, and its one tap the teacher's logits
    [B, K]; its variables have those of each under "student" and "teacher".

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> both = pair(network, network)
      >>> both.apply(both.init(jax.random.key(0)), jnp.ones((3, 2, 2, 1))).taps[0].shape
      (3, 2)
    """
    networks = dict(zip(_PARTS, (student, teacher)))

    def init(key: jax.Array) -> PyTree:
        made = {name: network.init(jax.random.fold_in(key, i))
                for i, (name, network) in enumerate(networks.items())}
        kinds = {kind for variables in made.values() for kind in variables}
        return {kind: {name: made[name].get(kind, {}) for name in _PARTS} for kind in kinds}

    def apply(variables: PyTree, images: jax.Array, train: bool = False) -> Outputs:
        first, second = (networks[name].apply(part_of(variables, name), images, train)
                         for name in _PARTS)
        statistics = {}
        if "batch_stats" in variables:
            statistics = dict(zip(_PARTS, (first.batch_stats, second.batch_stats)))
        return first._replace(taps=(second.logits,), batch_stats=statistics)

    return Network(init, apply, f"{student.name}_with_{teacher.name}")


def part_of(variables: PyTree, name: str) -> PyTree:
    """The variables of one of a pair, "student" or "teacher"."""
    return {kind: parts[name] for kind, parts in variables.items() if parts[name]}


def bidirectional(
    student: jax.Array, teacher: jax.Array, labels: jax.Array, *, delta: float = 2.0,
    temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """The losses of both, [B] each; each is constant in the other's logits.

    Args:
      student, teacher: z_s and z_t, [B, K].
      labels: y, [B, K].
      delta: weight of the direction that an image needs more.
      temperature: T.

    Example:
      >>> z = jnp.zeros((1, 2))
      >>> [loss.round(4).tolist() for loss in bidirectional(z, z, jnp.eye(2)[:1])]
      [[0.69...], [0.69...]]
    """
    fixed_s, fixed_t = (jax.lax.stop_gradient(z) for z in (student, teacher))
    more = _entropy(fixed_s / temperature) - _entropy(fixed_t / temperature)
    forward, reverse = jnp.where(more < 0, delta, 1.0), jnp.where(more > 0, delta, 1.0)
    apart = forward * _divergence(fixed_t / temperature, student / temperature)
    apart += reverse * _divergence(student / temperature, fixed_t / temperature)
    near = _divergence(teacher / temperature, fixed_s / temperature)
    return (_cross_entropy(student, labels) + temperature**2 * apart,
            _cross_entropy(teacher, labels) + temperature**2 * near)


def online(*, delta: float = 2.0, temperature: float = 1.0) -> Callable:
    """The `gradient` of `train.fit` for a `pair`.

    Args:
      delta, temperature: as for `bidirectional`, above 0.

    Returns:
      (network, epoch) -> (variables, images, labels, weights, images before the views) ->
      (gradient, variables).

    Raises:
      ConfigError: numbers that cannot be.

    Example:
      >>> callable(online(delta=3.0)(None, 0))
      True
    """
    require_above_zero("delta", delta, why="one direction would be left out", example=2.0)
    require_above_zero("temperature", temperature, why="logits are divided by it", example=1.0)

    def rule(network: Network, epoch: jax.Array) -> Callable:
        def gradient(variables, images, labels, weights, plain):
            def objective(params):
                outputs = network.apply({**variables, "params": params}, images, True)
                losses = bidirectional(outputs.logits, outputs.taps[0], labels, delta=delta,
                                       temperature=temperature)
                total = jnp.maximum(jnp.sum(weights), 1e-12)
                return sum(jnp.sum(weights * loss) for loss in losses) / total, outputs

            grads, outputs = jax.grad(objective, has_aux=True)(variables["params"])
            return grads, with_batch_stats(variables, outputs)

        return gradient

    return rule


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return -jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)


def _entropy(logits: jax.Array) -> jax.Array:
    logs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(logs) * logs, axis=-1)


def _divergence(first: jax.Array, second: jax.Array) -> jax.Array:
    """KL( softmax(first) || softmax(second) )."""
    ours, theirs = jax.nn.log_softmax(first), jax.nn.log_softmax(second)
    return jnp.sum(jnp.exp(ours) * (ours - theirs), axis=-1)
