"""One network that serves until its accuracy stands still, and is trained until it moves.

After every step the network's accuracy on real images enters a window. Once the window is full and
its range (largest minus smallest) is below `still`, a new network takes over. Otherwise it is
trained on the synthetic set, pass after pass, until a full window of the accuracies after each pass
has a range above `moved`.

Source: kaiwang960112/CAFE; Wang et al., CAFE: Learning to Condense Dataset by Aligning Features,
CVPR 2022.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.backend import in_chunks
from dd_jax.errors import ConfigError, require_at_least_zero, require_whole
from dd_jax.train.batches import permuted_epochs
from dd_jax.train.fit import augmented, fit, rows_of
from dd_jax.types import Augmentation, Batch, Network, Pool, PyTree, SyntheticSet

_MEASURE, _TRAIN, _RENEW = range(3)


class PlateauState(NamedTuple):
    """State of a plateau pool.

    Attributes:
      variables: of the network.
      optimizer: of its optimizer.
      accuracies: [window] float32 in 0..1, the last ones after a step, newest last; 0 before.
      uses: [] int32, steps that this network has served.
      renewals: [] int32, networks that came before it.
    """

    variables: PyTree
    optimizer: PyTree
    accuracies: jax.Array
    uses: jax.Array
    renewals: jax.Array


def resampled_accuracy(
    network: Network, variables: PyTree, real: Batch, key: jax.Array
) -> jax.Array:
    """Accuracy on as many real images of each class, drawn from the given ones with replacement.

    Fresh draws make the accuracies of an unchanged network differ as they do on new real images:
    the widths of the windows are about as large as this noise, and without it a network that
    cannot become better would be trained for ever.

    Args:
      network, variables: the classifier.
      real: images [K, n, H, W, C] in model space, labels [K, n].
      key: PRNG key of the draw.

    Returns:
      [] float32 in 0..1, the mean over classes.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> variables = network.init(jax.random.key(0))
      >>> one_image_twice = Batch(jnp.ones((2, 1, 4, 4, 1)), jnp.array([[0], [1]]))
      >>> resampled_accuracy(network, variables, one_image_twice, jax.random.key(1)).item()
      0.5
    """
    classes, each = real.labels.shape

    def predicted(x):
        return jnp.argmax(network.apply(variables, x).logits, axis=-1)

    images = real.images.reshape(-1, *real.images.shape[2:])
    right = in_chunks(predicted, images).reshape(classes, each) == real.labels
    drawn = jax.random.randint(key, (classes, each), 0, each, jnp.int32)
    return jnp.mean(jnp.take_along_axis(right, drawn, axis=1), dtype=jnp.float32)


def plateau_pool(
    network: Network,
    *,
    max_uses: int,
    max_epochs: int,
    window: int = 10,
    still: float = 0.04,
    moved: float = 0.03,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int = 256,
    augmentation: Augmentation | None = None,
) -> Pool:
    """CAFE's dynamic bi-level loop as a state, see the module.

    The lengths of both loops depend on the data; a fixed key gives fixed ones. Every accuracy is
    measured by `resampled_accuracy`.

    Args:
      network: the architecture.
      max_uses: steps after which a network is replaced at the latest, at least `window`.
      max_epochs: passes of one training at the most, at least `window`.
      window: accuracies in a full window.
      still: a network is replaced once the range of its window is below this.
      moved: a training ends once the range of its own window is above this.
      optimizer: trains the network; SGD of rate 0.01 by default.
      batch_size: images per training step; a smaller set goes whole.
      augmentation: of the training, one draw per image.

    Returns:
      A `Pool` with `PlateauState` that watches: its `advance(state, synthetic, key, real)` takes
      the real `Batch` (images [K, n, H, W, C]) that accuracies are measured on.

    Raises:
      ConfigError: a count, range or cap that cannot be; in `advance`: a batch that is not by class.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> pool = plateau_pool(network, max_uses=100, max_epochs=100)
    """
    _check(max_uses, max_epochs, window, still, moved, batch_size)
    optimizer = optimizer or optax.sgd(0.01)

    def new(key: jax.Array, renewals: jax.Array) -> PlateauState:
        variables = network.init(key)
        return PlateauState(variables, optimizer.init(variables["params"]),
                            jnp.zeros((window,), jnp.float32), jnp.zeros((), jnp.int32), renewals)

    def init(key: jax.Array, synthetic: SyntheticSet) -> PlateauState:
        return new(key, jnp.zeros((), jnp.int32))

    def draw(state: PlateauState, key: jax.Array) -> PyTree:
        return state.variables

    def train(variables, opt_state, synthetic: SyntheticSet, key, real: Batch):
        def go_on(carry):
            _, _, accuracies, epochs = carry
            enough = (epochs >= window) & (_range(accuracies) > moved)
            return (epochs < max_epochs) & ~enough

        def one_pass(carry):
            variables, opt_state, accuracies, epochs = carry
            train_key, measure_key = jax.random.split(jax.random.fold_in(key, epochs))
            fitted = fit(
                network, variables, state=opt_state, optimizer=optimizer, key=train_key,
                take=rows_of(synthetic.images, synthetic.labels),
                batches=permuted_epochs(synthetic.images.shape[0], batch_size),
                views=augmented(augmentation),
            )
            accuracy = resampled_accuracy(network, fitted.variables, real, measure_key)
            return *fitted[:2], _pushed(accuracies, accuracy), epochs + 1

        empty = jnp.zeros((window,), jnp.float32)
        start = (variables, opt_state, empty, jnp.zeros((), jnp.int32))
        return jax.lax.while_loop(go_on, one_pass, start)[:2]

    def advance(state: PlateauState, synthetic: SyntheticSet, key, real: Batch) -> PlateauState:
        if jnp.ndim(real.labels) != 2:
            raise ConfigError(f"plateau_pool got real labels of shape {jnp.shape(real.labels)}, "
                              "expected those of images by class, [K, n]",
                              fix="use it in layer_matching")
        measure_key, train_key, renew_key = (
            jax.random.fold_in(key, use) for use in (_MEASURE, _TRAIN, _RENEW))
        synthetic, real = jax.lax.stop_gradient((synthetic, real))
        accuracy = resampled_accuracy(network, state.variables, real, measure_key)
        accuracies, uses = _pushed(state.accuracies, accuracy), state.uses + 1
        stands_still = (uses >= window) & (_range(accuracies) < still)

        def goes_on() -> PlateauState:
            trained = train(state.variables, state.optimizer, synthetic, train_key, real)
            return PlateauState(*trained, accuracies, uses, state.renewals)

        return jax.lax.cond(stands_still | (uses >= max_uses),
                            lambda: new(renew_key, state.renewals + 1), goes_on)

    return Pool(init=init, draw=draw, advance=advance, watches=True)


def _pushed(accuracies: jax.Array, newest: jax.Array) -> jax.Array:
    return jnp.concatenate([accuracies[1:], newest[None]])


def _range(accuracies: jax.Array) -> jax.Array:
    return jnp.max(accuracies) - jnp.min(accuracies)


def _check(max_uses, max_epochs, window, still, moved, batch_size) -> None:
    require_whole("pool window", window, least=2, example=10)
    require_whole("pool max_uses", max_uses, least=window, example=max(100, window))
    require_whole("pool batch_size", batch_size, example=256)
    require_whole("pool max_epochs", max_epochs, least=window, example=max(100, window))
    require_at_least_zero("pool still", still, example=0.04)
    require_at_least_zero("pool moved", moved, example=0.03)
