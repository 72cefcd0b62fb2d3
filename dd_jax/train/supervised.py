"""Training of a network on a labelled set, one pass at a time: what evaluation, pools of networks
and inner loops have in common.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dd_jax.augment import cutmix
from dd_jax.backend import chunk_size
from dd_jax.nets import with_batch_stats
from dd_jax.types import Augmentation, Network, PyTree, SyntheticSet

LOSSES = ("cross_entropy", "squared_error", "mean_squared_error")
_ORDER, _STEP = range(2)


def weighted_loss(name: str, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """The training loss of a batch, summed with weights that leave out padding rows.

    "cross_entropy" takes probabilities as labels; "squared_error" is half the squared distance
    summed over classes, "mean_squared_error" the squared distance averaged over classes.
    """
    if name == "cross_entropy":
        each = optax.losses.softmax_cross_entropy(logits, labels)
    elif name == "mean_squared_error":
        each = jnp.mean((logits - labels) ** 2, axis=-1)
    else:
        each = 0.5 * jnp.sum((logits - labels) ** 2, axis=-1)
    return jnp.sum(weights * each)


def batch_gradient(
    network: Network,
    variables: PyTree,
    images: jax.Array,
    labels: jax.Array,
    *,
    loss: str = "cross_entropy",
    weights: jax.Array | None = None,
    train: bool = False,
    rematerialise: bool = False,
) -> tuple[PyTree, PyTree]:
    """Gradient of the mean loss of a batch in the network's parameters; differentiable in images.

    On a CPU it adds up over chunks of about 16 images, whose activations stay in the cache, unless
    the layers look at the whole batch.

    Args:
      network: the architecture.
      variables: its variables.
      images: [B, H, W, C] float32 in model space.
      labels: [B, K] float32.
      loss: one that `weighted_loss` knows.
      weights: [B], 0 for rows that do not count; all 1 by default.
      train: whether batch normalisation takes, and updates by, the statistics of this batch.
      rematerialise: whether to differentiate the gradient with the memory of one chunk, which is
        run once more for it.

    Returns:
      (gradient like variables["params"], variables with new running statistics).

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> variables = network.init(jax.random.key(0))
      >>> gradient, _ = batch_gradient(network, variables, jnp.ones((3, 2, 2, 1)), jnp.eye(3, 2))
      >>> gradient["head"]["kernel"].shape
      (4, 2)
    """
    return gradient_and_right(network, variables, images, labels, loss=loss, weights=weights,
                              train=train, rematerialise=rematerialise)[:2]


def gradient_and_right(
    network: Network,
    variables: PyTree,
    images: jax.Array,
    labels: jax.Array,
    *,
    loss: str = "cross_entropy",
    weights: jax.Array | None = None,
    train: bool = False,
    rematerialise: bool = False,
) -> tuple[PyTree, PyTree, jax.Array]:
    """What `batch_gradient` gives, and by weight how many images were classified rightly, []."""
    total = images.shape[0]
    weights = jnp.ones((total,), images.dtype) if weights is None else weights
    whole = train and "batch_stats" in variables
    chunk = total if whole else chunk_size(total)
    chunks = -(-total // chunk)

    def objective(params, images, labels, weights):
        outputs = network.apply({**variables, "params": params}, images, train)
        right = jnp.argmax(outputs.logits, axis=-1) == jnp.argmax(labels, axis=-1)
        return weighted_loss(loss, outputs.logits, labels, weights), (
            jnp.sum(weights * right), outputs)

    gradient = jax.grad(objective, has_aux=True)
    params, parts = variables["params"], (images, labels, weights)
    if chunks == 1:
        grads, (right, outputs) = gradient(params, *parts)
        variables = with_batch_stats(variables, outputs) if train else variables
    else:
        def padded(x):
            x = jnp.pad(x, ((0, chunks * chunk - total), *((0, 0),) * (x.ndim - 1)))
            return x.reshape(chunks, chunk, *x.shape[1:])

        def of_chunk(params, part):
            grads, (right, _) = gradient(params, *part)
            return grads, right

        if rematerialise:
            of_chunk = jax.checkpoint(of_chunk, prevent_cse=False)  # in the body of a scan

        def add(carry, part):
            return jax.tree.map(jnp.add, carry, of_chunk(params, part)), None

        zeros = (jax.tree.map(jnp.zeros_like, params), jnp.zeros((), weights.dtype))
        grads, right = jax.lax.scan(add, zeros, jax.tree.map(padded, parts))[0]
    count = jnp.sum(weights)
    return jax.tree.map(lambda g: g / count, grads), variables, right


def train_epoch(
    network: Network,
    variables: PyTree,
    opt_state: PyTree,
    key: jax.Array,
    *,
    size: int,
    take: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    update: Callable[..., tuple[PyTree, PyTree]],
    loss: str = "cross_entropy",
    batch_size: int = 256,
    augmentation: Augmentation | None = None,
    mix: float = 0.0,
    gradient: Callable[..., tuple[PyTree, PyTree]] | None = None,
) -> tuple[PyTree, PyTree]:
    """One pass over a set in a new order; a partial last batch is padded with rows that weigh 0.

    Args:
      network, variables, opt_state: what is trained, and its optimiser's state.
      key: PRNG key of this pass.
      size: M, number of images.
      take: rows [b] int32 -> (images [b, H, W, C] float32 in model space, labels [b, K]).
      update: (gradient, opt_state, params, i) -> (params, opt_state), i the batch's number.
      loss: one that `weighted_loss` knows.
      batch_size: images per step; a smaller set goes whole.
      augmentation: applied to every batch, one draw per image.
      mix: probability that a batch is cut and mixed, see `augment.cutmix`.
      gradient: (variables, images, labels, weights, the images before augmentation and mixing) ->
        (gradient, variables), in place of `batch_gradient` and its loss.

    Returns:
      (variables, opt_state). Batch normalisation sees the padding rows, which repeat others.
    """
    batch_size = min(batch_size, size)
    order = jax.random.permutation(jax.random.fold_in(key, _ORDER), size).astype(jnp.int32)
    step_key = jax.random.fold_in(key, _STEP)

    def step(i, carry):
        variables, opt_state = carry
        position = i * batch_size + jnp.arange(batch_size)
        weights = (position < size).astype(jnp.float32)
        images, labels = take(order[position % size])
        plain_images = images
        draw_key, mix_key = jax.random.split(jax.random.fold_in(step_key, i))
        if augmentation is not None:
            images = augmentation.apply(augmentation.draw(draw_key, batch_size), images)
        if mix:
            images, labels = cutmix(images, labels, mix_key, probability=mix)
        if gradient is None:
            grads, variables = batch_gradient(network, variables, images, labels, loss=loss,
                                              weights=weights, train=True)
        else:
            grads, variables = gradient(variables, images, labels, weights, plain_images)
        params, opt_state = update(grads, opt_state, variables["params"], i)
        return {**variables, "params": params}, opt_state

    return jax.lax.fori_loop(0, -(-size // batch_size), step, (variables, opt_state))


def train_pass(
    network: Network,
    carry: tuple[PyTree, PyTree],
    synthetic: SyntheticSet,
    key: jax.Array,
    *,
    optimizer: optax.GradientTransformation,
    **options,
) -> tuple[PyTree, PyTree]:
    """One pass of an optax optimiser over a labelled set.

    Args:
      network: the architecture.
      carry: (variables, state of the optimiser).
      synthetic: the set.
      key: PRNG key of this pass.
      optimizer: of the parameters.
      **options: batch_size, augmentation, mix and loss, as for `train_epoch`.

    Returns:
      (variables, state of the optimiser).
    """

    def update(grads, opt_state, params, i):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return train_epoch(
        network, *carry, key, size=synthetic.images.shape[0], update=update,
        take=lambda rows: (synthetic.images[rows], synthetic.labels[rows]), **options,
    )
