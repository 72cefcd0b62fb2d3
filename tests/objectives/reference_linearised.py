"""The meta-gradient of a linearised network written down as the formulas stand, for comparison.

Nothing is collapsed or shared: every Adam step differentiates the whole inner loss, the Hessian's
products are forward over reverse, and the exact optimum is a dense dual system.
"""

from __future__ import annotations

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax


def mirrored(images, labels):
    return (jnp.concatenate([images, images[:, :, ::-1]]), jnp.concatenate([labels, labels]))


def model(network, variables, omega, support, lam, images):
    """f_omega(images), f_omega(support) and W; omega is a tangent of all params, head kernel 0."""
    x, y = support

    def at(z):
        def run(params):
            outputs = network.apply({**variables, "params": params}, z)
            return outputs.logits, outputs.features

        (_, features), (tangent, _) = jax.jvp(run, (variables["params"],), (omega,))
        return features, tangent

    phi, h = at(x)
    a = phi @ phi.T + lam * jnp.eye(len(x), dtype=phi.dtype)
    w = phi.T @ jnp.linalg.solve(a, y - h)
    real_phi, real_h = (phi, h) if images is x else at(images)
    return real_h + real_phi @ w, h + phi @ w, w


def without_head(tree):
    head = {**tree["head"], "kernel": jnp.zeros_like(tree["head"]["kernel"])}
    return {**tree, "head": head}


def inner_loss(network, variables, omega, psi, lam, flip):
    support = mirrored(psi[0], psi[1]) if flip else psi[:2]
    _, fit, w = model(network, variables, omega, support, lam, support[0])
    ridge = jnp.sum(w**2) + optax.tree.norm(omega, squared=True)
    squares = jnp.sum((support[1] - fit) ** 2)
    return (0.5 * squares + 0.5 * lam * ridge) / support[1].size


def outer_loss(network, variables, omega, psi, batch, lam, flip):
    support = mirrored(psi[0], psi[1]) if flip else psi[:2]
    scores, _, _ = model(network, variables, omega, support, lam, batch.images)
    one_hot = jax.nn.one_hot(batch.labels, scores.shape[-1], dtype=scores.dtype)
    entropy = -jnp.mean(jnp.sum(one_hot * jax.nn.log_softmax(jnp.exp(psi[2]) * scores), -1))
    top = jnp.sort(psi[1], axis=-1)
    return entropy - jnp.mean(jnp.minimum(top[:, -1] - top[:, -2], 0.5 / scores.shape[-1]))


def meta_gradient(network, variables, psi, batch, *, lam, flip, rates, steps=20, cap=True):
    """(loss, gradient in psi = (images, labels, tau)) by Adam for omega and for v."""
    def inner(omega, psi):
        return inner_loss(network, variables, omega, psi, lam, flip)

    def run(gradient, rate):
        optimizer = optax.adam(rate)

        def step(carry, _):
            v, state = carry
            updates, state = optimizer.update(without_head(gradient(v)), state)
            return (optax.apply_updates(v, updates), state), None

        zero = optax.tree.zeros_like(variables["params"])
        return jax.lax.scan(step, (zero, optimizer.init(zero)), None, length=steps)[0][0]

    slope = jax.grad(inner)
    omega = run(lambda w: slope(w, psi), rates[0])
    loss, (g, direct) = jax.value_and_grad(
        lambda w, psi: outer_loss(network, variables, w, psi, batch, lam, flip), (0, 1)
    )(omega, psi)

    def residual(v):
        product = jax.jvp(lambda w: slope(w, psi), (omega,), (v,))[1]
        return jax.tree.map(jnp.subtract, product, g)

    v = run(residual, rates[1])
    implicit = jax.grad(lambda psi: -optax.tree.vdot(v, slope(omega, psi)))(psi)
    if cap:
        def one(a, b):
            a_norm, b_norm = jnp.linalg.norm(a.ravel()), jnp.linalg.norm(b.ravel())
            return jnp.nan_to_num(a * jnp.minimum(1.0, b_norm / a_norm))

        implicit = jax.tree.map(one, implicit, direct)
    return loss, jax.tree.map(jnp.add, direct, implicit)


def dual_loss(network, variables, psi, batch, *, lam, flip):
    """The outer loss at the exact optimum, by the kernel J J^T + Phi Phi^T (x) I."""
    images, labels = mirrored(psi[0], psi[1]) if flip else psi[:2]
    flat, back = jax.flatten_util.ravel_pytree(variables["params"])
    frozen, _ = jax.flatten_util.ravel_pytree(without_head(optax.tree.ones_like(back(flat))))

    def jacobian(x):
        def logits(p):
            return network.apply({**variables, "params": back(p)}, x).logits

        return jax.jacrev(logits)(flat).reshape(-1, flat.size) * frozen

    def features(x):
        return network.apply(variables, x).features

    eye = jnp.eye(labels.shape[1])
    js, jt, ps, pt = (f(x) for f in (jacobian, features) for x in (images, batch.images))
    gram = js @ js.T + jnp.kron(ps @ ps.T, eye) + lam * jnp.eye(labels.size)
    cross = jt @ js.T + jnp.kron(pt @ ps.T, eye)
    scores = (cross @ jnp.linalg.solve(gram, labels.ravel())).reshape(-1, labels.shape[1])
    logs = jax.nn.log_softmax(jnp.exp(psi[2]) * scores)
    entropy = -jnp.mean(jnp.take_along_axis(logs, batch.labels[:, None], axis=1))
    top = jnp.sort(psi[1], axis=-1)
    return entropy - jnp.mean(jnp.minimum(top[:, -1] - top[:, -2], 0.5 / labels.shape[1]))
