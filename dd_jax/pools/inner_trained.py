"""One network that is trained between its uses, and replaced after a number of them.

Source: VICO-UoE/DatasetCondensation; Zhao, Mopuri and Bilen, Dataset Condensation with Gradient
Matching, ICLR 2021.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import require_probability, require_whole
from dd_jax.train.batches import permuted_epochs
from dd_jax.train.fit import augmented, fit, rows_of
from dd_jax.types import Augmentation, Network, Pool, PyTree, SyntheticSet


class InnerTrainedState(NamedTuple):
    """State of an inner-trained pool.

    Attributes:
      variables: of the network.
      optimizer: of its optimizer.
      uses: [] int32, steps that this network has served.
      renewals: [] int32, networks that came before it.
    """

    variables: PyTree
    optimizer: PyTree
    uses: jax.Array
    renewals: jax.Array


def inner_trained_pool(
    network: Network,
    *,
    uses: int,
    epochs: int,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int = 256,
    augmentation: Augmentation | None = None,
    mix: float = 0.0,
) -> Pool:
    """DC's two loops as a state: a random network serves `uses` steps, trained after each but last.

    Training is `epochs` passes by cross-entropy over the set that `advance` is given: the synthetic
    set in DC, real images in IDC.

    Args:
      network: the architecture.
      uses: steps that one network serves.
      epochs: passes over the set between two of them.
      optimizer: trains the network; SGD of rate 0.01 by default.
      batch_size: images per training step; a smaller set goes whole.
      augmentation: of the training, one draw per image.
      mix: probability that a training batch is cut and mixed, see `augment.cutmix`.

    Returns:
      A `Pool` with `InnerTrainedState`.

    Raises:
      ConfigError: `uses` or `batch_size` below 1, `epochs` below 0, a `mix` that is no probability.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> pool = inner_trained_pool(network, uses=10, epochs=50)
    """
    for label, value, low in (("uses", uses, 1), ("epochs", epochs, 0),
                              ("batch_size", batch_size, 1)):
        require_whole(f"pool {label}", value, least=low, example=10)
    require_probability("pool mix", mix)
    optimizer = optimizer or optax.sgd(0.01)

    def new(key: jax.Array, renewals: jax.Array) -> InnerTrainedState:
        variables = network.init(key)
        return InnerTrainedState(variables, optimizer.init(variables["params"]),
                                 jnp.zeros((), jnp.int32), renewals)

    def init(key: jax.Array, synthetic: SyntheticSet) -> InnerTrainedState:
        return new(key, jnp.zeros((), jnp.int32))

    def draw(state: InnerTrainedState, key: jax.Array) -> PyTree:
        return state.variables

    def train(state: InnerTrainedState, synthetic: SyntheticSet, key) -> InnerTrainedState:
        images, labels = synthetic.images, synthetic.labels
        fitted = fit(
            network, state.variables, state=state.optimizer, take=rows_of(images, labels),
            batches=permuted_epochs(images.shape[0], batch_size, epochs), optimizer=optimizer,
            key=key, views=augmented(augmentation, mix=mix),
        )
        return InnerTrainedState(fitted.variables, fitted.optimizer, state.uses + 1,
                                 state.renewals)

    def advance(state: InnerTrainedState, synthetic: SyntheticSet, key) -> InnerTrainedState:
        if uses == 1:
            return new(key, state.renewals + 1)
        synthetic = jax.lax.stop_gradient(synthetic)
        return jax.lax.cond(
            state.uses + 1 >= uses,
            lambda: new(key, state.renewals + 1),
            lambda: train(state, synthetic, key),
        )

    return Pool(init=init, draw=draw, advance=advance)
