"""The tangent kernel of a finite network, and the network's linearisation.

With J(x) [K, P] the Jacobian of the logits in the parameters at theta_0,

  f(x; theta_0 + w) = f(x; theta_0) + J(x) w + O(|w|^2),    Theta(x, x') = J(x) J(x')^T  [K, K].

Source: Jacot et al., Neural Tangent Kernel, NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks, map_over
from dd_jax.errors import ConfigError
from dd_jax.kernels.block_plan import BUDGET_BYTES
from dd_jax.kernels.blockwise import blockwise
from dd_jax.kernels.functions import symmetrised
from dd_jax.types import Kernel, Network, Outputs, PyTree


def _check(variables: PyTree) -> None:
    if not isinstance(variables, dict) or "params" not in variables:
        found = sorted(variables) if isinstance(variables, dict) else type(variables).__name__
        raise ConfigError(f"the variables are {found}, expected a dict with 'params'",
                          fix="pass what network.init(key) returns")


def _count(params: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _promoted(params: PyTree, images: jax.Array) -> PyTree:
    """Parameters at least as wide as the images: float64 images get a float64 kernel."""
    return jax.tree.map(lambda p: p.astype(jnp.promote_types(p.dtype, images.dtype)), params)


def _pulled_back(network: Network, variables: PyTree, images: jax.Array, basis: jax.Array):
    """Gradients of basis @ logits for every image: the tree of parameters with [n, q] in front."""
    params = _promoted(variables["params"], images)

    def one(image):
        def logits(params):
            return network.apply({**variables, "params": params}, image[None]).logits[0]

        pull = jax.vjp(logits, params)[1]
        return jax.vmap(lambda row: pull(row)[0])(basis)

    return map_over(one, images)


def _contract(a: PyTree, b: PyTree) -> jax.Array:
    """Inner products over all parameters: [n1, q, ...] and [n2, q, ...] -> [n1 q, n2 q]."""

    def rows(leaf):
        return leaf.reshape(leaf.shape[0] * leaf.shape[1], -1)

    return sum(jnp.matmul(rows(x), rows(y).T, precision="highest")
               for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def _basis(network: Network, variables: PyTree, images: jax.Array) -> jax.Array:
    """The identity [K, K] in the dtype of the logits."""
    promoted = {**variables, "params": _promoted(variables["params"], images)}
    logits = jax.eval_shape(network.apply, promoted, images).logits
    return jnp.eye(logits.shape[-1], dtype=logits.dtype)


def _images_per_block(params: PyTree, vectors: int, budget_bytes: int) -> int:
    """Two sides of a block, values and cotangents, each `vectors` gradients of float32."""
    return max(1, budget_bytes // (16 * vectors * _count(params)))


def empirical_ntk(
    network: Network, variables: PyTree, *, block: int | None = None,
    budget_bytes: int = BUDGET_BYTES,
) -> Kernel:
    """The tangent kernel of a network at given variables, averaged over outputs.

    k(x, x') = 1/K sum_a <d f_a(x) / d theta, d f_a(x') / d theta> = tr(Theta(x, x')) / K.

    One output at a time, so that a block holds one gradient per image and never the Jacobian.

    Args:
      network: the architecture; evaluated in evaluation mode.
      variables: theta_0 and, as constants, running statistics.
      block: images per side of a block; None for what the budget has room for.
      budget_bytes: memory for the gradients of one block, in bytes.

    Returns:
      A `Kernel` in the dtype of the images, evaluated blockwise; reverse-mode derivatives in the
      images when it takes more than one block.

    Raises:
      ConfigError: variables without "params", a bad block.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> kernel = empirical_ntk(network, network.init(jax.random.key(0)))
      >>> kernel(jnp.ones((3, 4, 4, 1))).shape
      (3, 3)
    """
    _check(variables)

    def averaged(contracted: Callable, images: jax.Array) -> jax.Array:
        basis = _basis(network, variables, images)

        # A derivative computes the gradients of each output again: they are what is large here.
        @jax.checkpoint
        def one(row):
            return contracted(lambda x: _pulled_back(network, variables, x, row[None]))

        shape = jax.eval_shape(one, basis[0])
        start = jnp.zeros(shape.shape, shape.dtype)
        total, _ = jax.lax.scan(lambda total, row: (total + one(row), None), start, basis)
        return (total / basis.shape[0]).astype(images.dtype)

    def pair(x1: jax.Array, x2: jax.Array) -> jax.Array:
        return averaged(lambda jacobian: _contract(jacobian(x1), jacobian(x2)), x1)

    def gram(x: jax.Array) -> jax.Array:
        def contracted(jacobian):
            j = jacobian(x)
            return _contract(j, j)

        return symmetrised(averaged(contracted, x))

    whole = Kernel(pair=pair, gram=gram, pair_bytes=lambda shape: 8,
                   name=f"empirical NTK of {network.name}")
    block = block or _images_per_block(variables["params"], 1, budget_bytes)
    return blockwise(whole, block=block)


def empirical_ntk_matrix(
    network: Network, variables: PyTree, *, block: int | None = None,
    budget_bytes: int = BUDGET_BYTES,
) -> Callable[..., jax.Array]:
    """The whole tangent kernel of a network, with all pairs of outputs.

    Theta[i K + a, j K + b] = <d f_a(x1_i) / d theta, d f_b(x2_j) / d theta>.

    It is the matrix of the linear least-squares problem that `linearised` poses in its parameters.

    Args:
      network: the architecture; evaluated in evaluation mode.
      variables: theta_0 and, as constants, running statistics.
      block: images whose Jacobians are held at once on either side; None for what the budget has
        room for.
      budget_bytes: memory for those Jacobians, in bytes.

    Returns:
      (x1 [n1, H, W, C], x2 [n2, H, W, C] or None for x1) -> [n1 K, n2 K], image-major, in the
      dtype of the images; exactly symmetric where x2 is None.

    Raises:
      ConfigError: variables without "params".

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> matrix = empirical_ntk_matrix(network, network.init(jax.random.key(0)))
      >>> matrix(jnp.ones((3, 4, 4, 1))).shape
      (6, 6)
    """
    _check(variables)

    def between(x1: jax.Array, x2: jax.Array) -> jax.Array:
        basis = _basis(network, variables, x1)
        size = block or _images_per_block(variables["params"], basis.shape[0], budget_bytes)

        def jacobian(images):
            return _pulled_back(network, variables, images, basis)

        def one_row(a):
            left = jacobian(a)

            def one_block(b):
                out = _contract(jacobian(b), left)
                return out.reshape(b.shape[0], basis.shape[0], -1)

            return _unfold_outputs(in_chunks(one_block, x2, size=size), a.shape[0])

        out = in_chunks(one_row, x1, size=size)
        return out.reshape(x1.shape[0] * basis.shape[0], -1).astype(x1.dtype)

    def matrix(x1: jax.Array, x2: jax.Array | None = None) -> jax.Array:
        return symmetrised(between(x1, x1)) if x2 is None else between(x1, x2)

    return matrix


def _unfold_outputs(out: jax.Array, n1: int) -> jax.Array:
    """[n2, K, n1 K] -> [n1, K, n2 K], so that the rows of x1 lead."""
    n2, outputs, _ = out.shape
    return out.reshape(n2 * outputs, n1, outputs).transpose(1, 2, 0)


def linearised(network: Network, variables: PyTree, *, centred: bool = False) -> Network:
    """The first-order Taylor expansion of a network in its parameters, as a network.

    f_lin(x; w) = f(x; theta_0) + J(x) w, or J(x) w alone where it is centred.

    Its parameters w have the tree of theta_0's and start at zero; one forward-mode pass computes
    it. Losses that are convex in the logits are convex in w.

    Args:
      network: f.
      variables: theta_0 and, as constants, running statistics: it is always the function of
        evaluation mode that is expanded.
      centred: whether f(x; theta_0) is left out.

    Returns:
      A `Network`: `init(key)` returns {"params": zeros}; `features` and `taps` are those of f at
      theta_0, not expanded.

    Raises:
      ConfigError: variables without "params".

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> linear = linearised(network, network.init(jax.random.key(0)), centred=True)
      >>> linear.apply(linear.init(jax.random.key(1)), jnp.ones((1, 4, 4, 1))).logits.tolist()
      [[0.0, 0.0]]
    """
    _check(variables)

    def init(key: jax.Array) -> PyTree:
        return {"params": jax.tree.map(jnp.zeros_like, variables["params"])}

    def apply(tangent: PyTree, images: jax.Array, train: bool = False) -> Outputs:
        def base(params):
            out = network.apply({**variables, "params": params}, images)
            return out.logits, (out.features, out.taps)

        at_start, change, (features, taps) = jax.jvp(
            base, (variables["params"],), (tangent["params"],), has_aux=True
        )
        return Outputs(change if centred else at_start + change, features, taps)

    return Network(init=init, apply=apply, name=f"linearised {network.name}")
