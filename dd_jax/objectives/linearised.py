"""The ridge regression of a network linearised at its weights, with its last layer eliminated.

For a network theta with features phi(x) [P] and logits [K], and a tangent omega of all weights but
the last layer's kernel, h_omega(x) [K] is the derivative of the logits in direction omega. The
model f(x) = h_omega(x) + phi(x) W is linear in (omega, W) and fitted to the synthetic set by

  L_s = [ 1/2 ||Y - f(X)||^2 + lam/2 (||W||^2 + ||omega||^2) ] / (n K).

For given omega the best W is Phi^T A^{-1} (Y - h_omega(X)), A = Phi Phi^T + lam I. So (derived)

  L_s(omega) = c/2 [ <Y - J omega, A^{-1} (Y - J omega)> + ||omega||^2 ],   c = lam / (n K),

where J omega = h_omega(X): a quadratic whose Hessian is H = c (J^T A^{-1} J + I), and whose minimum
solves H omega = c J^T A^{-1} Y. The network is linearised and A inverted once; a product with H is
then one pass of J and one of J^T over the synthetic images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.backend import chunk_size
from dd_jax.errors import ConfigError
from dd_jax.solvers.system import Regulariser, factorise, solve, times, wide_dtype, widened
from dd_jax.types import Batch, Network, PyTree, SyntheticSet


def check_head(network: Network) -> None:
    """Checks that the last layer of a network is found at params["head"]["kernel"].

    Raises:
      ConfigError: if it is not.
    """
    params = jax.eval_shape(lambda: network.init(jax.random.key(0)))["params"]
    if "kernel" not in params.get("head", {}):
        raise ConfigError(
            f"{network.name} has parameters {sorted(params)}, expected a last layer named 'head' "
            "with a 'kernel'", fix="name the network's last dense layer 'head'",
        )


def trained_part(variables: PyTree) -> PyTree:
    """The parameters that omega is a tangent of: all but the kernel of the last layer."""
    params = variables["params"]
    head = {name: leaf for name, leaf in params["head"].items() if name != "kernel"}
    return {**params, "head": head}


def linearise(
    network: Network, variables: PyTree, images: jax.Array
) -> tuple[Callable[[PyTree], jax.Array], jax.Array]:
    """The linear map omega -> h_omega(images) [n, K], and the features [n, P].

    The kernel of the last layer is a constant of the map, so nothing can move it.
    """
    kernel = variables["params"]["head"]["kernel"]

    def logits(trained):
        params = {**trained, "head": {**trained["head"], "kernel": kernel}}
        outputs = network.apply({**variables, "params": params}, images)
        return outputs.logits, outputs.features

    _, tangent, features = jax.linearize(logits, trained_part(variables), has_aux=True)
    return tangent, features


class InnerProblem(NamedTuple):
    """The quadratic L_s of one network and one synthetic set.

    Attributes:
      features: Phi, [n, P].
      labels: Y, [n, K].
      forward: J, omega -> [n, K].
      backward: J^T, [n, K] -> omega.
      inverse: A^{-1}, [n, n] float64 where the backend has it.
      scale: c.
      jitter_steps: [] int32, how often lam had to be raised to factorise A; 0 is normal.
    """

    features: jax.Array
    labels: jax.Array
    forward: Callable[[PyTree], jax.Array]
    backward: Callable[[jax.Array], PyTree]
    inverse: jax.Array
    scale: float
    jitter_steps: jax.Array

    def solve(self, right: jax.Array) -> jax.Array:
        """A^{-1} right, [n, K]."""
        with widened():
            return times(self.inverse, right.astype(self.inverse.dtype)).astype(right.dtype)

    def hessian(self, tangent: PyTree) -> PyTree:
        """H tangent."""
        pulled = self.backward(self.solve(self.forward(tangent)))
        return jax.tree.map(lambda a, b: self.scale * (a + b), pulled, tangent)

    def right_hand_side(self) -> PyTree:
        """c J^T A^{-1} Y, so that H omega equals it at the minimum."""
        return optax.tree.scale(self.scale, self.backward(self.solve(self.labels)))

    def read_out(self, alpha: jax.Array) -> jax.Array:
        """W = Phi^T alpha, [P, K]."""
        with widened():
            wide = wide_dtype()
            weights = times(self.features.T.astype(wide), alpha.astype(wide))
            return weights.astype(alpha.dtype)


def inner_problem(
    network: Network, variables: PyTree, support: SyntheticSet, *, ridge: float
) -> InnerProblem:
    """Linearises the network at its weights and inverts A, once for all products.

    Args:
      network, variables: theta.
      support: the n images and labels that are fitted, mirror images included.
      ridge: lam, absolute.

    Returns:
      An `InnerProblem`.
    """
    forward, features = linearise(network, variables, support.images)
    transpose = jax.linear_transpose(forward, trained_part(variables))
    with widened():
        wide = features.astype(wide_dtype())
        system = factorise(times(wide, wide.T), Regulariser(ridge, "absolute"))
        # Tens of products follow: a product with the inverse is faster than two triangular solves.
        inverse = solve(system, jnp.eye(wide.shape[0], dtype=wide.dtype))
        inverse = 0.5 * (inverse + inverse.T)
    return InnerProblem(
        features=features, labels=support.labels, forward=forward,
        backward=lambda u: transpose(u)[0], inverse=inverse, scale=ridge / support.labels.size,
        jitter_steps=system.steps,
    )


class OuterValue(NamedTuple):
    """Cross-entropy on real images, its accuracy, and its gradient in what the model depends on."""

    loss: jax.Array
    accuracy: jax.Array
    omega: PyTree
    weights: jax.Array
    log_temperature: jax.Array


def _sum_over_chunks(fn: Callable, xs: PyTree, size: int | None) -> PyTree:
    """The sum of `fn` over chunks of rows, so that only one chunk's activations exist at a time."""
    total = jax.tree.leaves(xs)[0].shape[0]
    size = min(size or chunk_size(total), total)
    full = total // size
    if full == 1 and size == total:
        return fn(xs)
    head = jax.tree.map(lambda x: x[: full * size].reshape(full, size, *x.shape[1:]), xs)
    zeros = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype),
        jax.eval_shape(fn, jax.tree.map(lambda x: x[0], head)),
    )
    out, _ = jax.lax.scan(lambda sums, x: (jax.tree.map(jnp.add, sums, fn(x)), None), zeros, head)
    if full * size < total:
        tail = fn(jax.tree.map(lambda x: x[full * size :], xs))
        out = jax.tree.map(jnp.add, out, tail)
    return out


def outer_value(
    network: Network,
    variables: PyTree,
    omega: PyTree,
    weights: jax.Array,
    log_temperature: jax.Array,
    batch: Batch,
    *,
    chunk: int | None = None,
) -> OuterValue:
    """Mean softmax cross-entropy of e^tau f(x) on real images, with all its gradients.

    Each image is passed once: primal, tangent and transposed tangent of the linearised network.

    Args:
      network, variables: theta.
      omega, weights: the fitted model, W [P, K].
      log_temperature: tau, [].
      batch: real images [B, H, W, C] and labels [B].
      chunk: images per pass; None for the backend's default.

    Returns:
      An `OuterValue`.
    """
    count = batch.labels.shape[0]

    def part(rows: Batch) -> OuterValue:
        tangent, features = linearise(network, variables, rows.images)

        def total(omega, weights, tau):
            scores = tangent(omega) + times(features, weights)
            losses = optax.losses.softmax_cross_entropy_with_integer_labels(
                jnp.exp(tau) * scores, rows.labels
            )
            right = jnp.argmax(scores, axis=-1) == rows.labels
            return jnp.sum(losses) / count, jnp.sum(right) / count

        (loss, accuracy), gradient = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(
            omega, weights, log_temperature
        )
        return OuterValue(loss, accuracy.astype(loss.dtype), *gradient)

    return _sum_over_chunks(part, batch, chunk)
