"""Gradient matching as one would first write it in JAX: the rival of the library's own steps.

Native convolutions, whole batches, vmap over classes, and plain `jax.grad` of a function of a
gradient. Loops whose steps follow from one another are Python loops around a compiled step: a
native convolution inside `lax.scan` is much slower still on a CPU, and nobody would stay with that.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dd_jax.augment import cutmix
from dd_jax.objectives.gradient_distances import distance_named


def mean_gradient(network, params, images, labels):
    """Of the mean cross-entropy of a whole batch; labels are [B, K] probabilities."""

    def loss(params):
        logits = network.apply({"params": params}, images).logits
        return jnp.mean(optax.losses.softmax_cross_entropy(logits, labels))

    return jax.grad(loss)(params)


def class_distance(network, params, synthetic, real, label, *, distance, num_classes=10):
    """D of the gradients on the real and on the synthetic images of one class."""

    def gradient(images):
        labels = jnp.broadcast_to(jax.nn.one_hot(label, num_classes), (len(images), num_classes))
        return mean_gradient(network, params, images, labels)

    return distance_named(distance)(jax.lax.stop_gradient(gradient(real)), gradient(synthetic))


def plain_objective(objective, network):
    """DC's objective with the plain loss in the place of the library's."""

    def loss(synthetic, state, batch, key):
        params, num_classes = state.variables["params"], synthetic.labels.shape[-1]
        own = synthetic.images.reshape(num_classes, -1, *synthetic.images.shape[1:])

        def of_class(images, real, label):
            return class_distance(network, params, images, real, label, distance="row_cosine",
                                  num_classes=num_classes)

        return jnp.sum(jax.vmap(of_class)(own, batch.images, jnp.arange(num_classes))), {}

    return objective._replace(loss=loss)


def plain_inner_loop(network, *, steps: int = 50):
    """(params, images, labels) -> params after SGD steps on the whole set."""

    @jax.jit
    def step(params, images, labels):
        grads = mean_gradient(network, params, images, labels)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)

    def loop(params, images, labels):
        for _ in range(steps):
            params = step(params, images, labels)
        return params

    return loop


def plain_idc_step(network, decode, matching, training):
    """One step of IDC: every class in turn, then training on real images in batches of 64.

    Args:
      network: a ConvNet.
      decode: stored images -> shown images, class-major.
      matching, training: augmentations.

    Returns:
      (stored images [M, H, W, C], params, real images [K, 64, H, W, C], training images, labels
      [n, K], key) -> (stored images, params).
    """
    sgd = optax.sgd(1e-4, momentum=0.5)
    network_sgd = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.01, momentum=0.9))

    @jax.jit
    def match(stored, state, params, real, label, key):
        draw = matching.draw(key, 1)

        def loss(stored):
            shown = decode(stored)
            shown = shown.reshape(10, -1, *shown.shape[1:])[label]
            return class_distance(network, params, matching.apply(draw, shown),
                                  matching.apply(draw, real), label, distance="conv_absolute")

        updates, state = sgd.update(jax.grad(loss)(stored), state)
        return optax.apply_updates(stored, updates), state

    @jax.jit
    def train(params, state, images, labels, key):
        images = training.apply(training.draw(key, len(images)), images)
        images, labels = cutmix(images, labels, key)
        updates, state = network_sgd.update(mean_gradient(network, params, images, labels),
                                            state, params)
        return optax.apply_updates(params, updates), state

    def step(stored, params, real, images, labels, key):
        state, network_state = sgd.init(stored), network_sgd.init(params)
        keys = jax.random.split(key, 10)
        for label in range(10):
            stored, state = match(stored, state, params, real[label], label, keys[label])
        for i, start in enumerate(range(0, len(images), 64)):
            part = slice(start, start + 64)
            params, network_state = train(params, network_state, images[part], labels[part],
                                          keys[i])
        return stored, params

    return step
