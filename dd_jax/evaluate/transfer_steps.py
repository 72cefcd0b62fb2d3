"""The steps of a transfer test: pre-training, linear probe, fine-tuning. See `transfer`."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from dd_jax.augment import views
from dd_jax.backend import on_cpu
from dd_jax.data import normalise
from dd_jax.data.normalise import Normaliser
from dd_jax.errors import ConfigError, require_whole
from dd_jax.evaluate.build import build_network
from dd_jax.evaluate.protocol import Protocol, protocol
from dd_jax.evaluate.train import predict, train
from dd_jax.labels.losses import integer_cross_entropy, mean_squared_error
from dd_jax.labels.supervision import own_labels
from dd_jax.nets.layers import initialisers
from dd_jax.train.batches import random_batches
from dd_jax.train.fit import fit, rows_of
from dd_jax.train.teachers import real_images
from dd_jax.types import Augmentation, DataSpec, Network, Outputs, PyTree, Split

_HEAD, _PROBE = 2000, 2001
# Data whose mirror images are of no class.
DIGITS = frozenset({"mnist", "svhn"})


@dataclasses.dataclass(frozen=True)
class TransferBudget:
    """How pre-trained networks are tested on the target; the defaults are the paper's.

    Differs from the official code: each step of the probe draws its images from all (there from
    what is left of a permutation); targets other than CIFAR and Tiny-ImageNet are fine-tuned for as
    long as these (there 5,000 steps); MNIST is not mirrored either, as SVHN is not there.

    Attributes:
      probe_steps, probe_batch_size, probe_rate, probe_momentum: SGD of the linear probe, its rate
        decayed to zero by a cosine; 0 steps leave it out.
      tune_steps, tune_batch_size, tune_rate, tune_momentum, tune_decay: SGD of the fine-tuning,
        its rate decayed to zero by a cosine; 0 steps leave it out.
      tune_padding, tune_flip: crops of the image in so many black pixels, and mirroring, of each
        image that is fine-tuned on; None: unless the target is of `DIGITS`.
      seeds: networks pre-trained and tested.
    """

    probe_steps: int = 5000
    probe_batch_size: int = 512
    probe_rate: float = 0.2
    probe_momentum: float = 0.9
    tune_steps: int = 10_000
    tune_batch_size: int = 256
    tune_rate: float = 0.01
    tune_momentum: float = 0.9
    tune_decay: float = 5e-4
    tune_padding: int = 4
    tune_flip: bool | None = None
    seeds: int = 3

    def __post_init__(self):
        for name, low in (("probe_steps", 0), ("probe_batch_size", 1), ("tune_steps", 0),
                          ("tune_batch_size", 1), ("tune_padding", 0), ("seeds", 1)):
            value = getattr(self, name)
            require_whole(f"transfer {name}", value, least=low)
        for name in ("probe_rate", "probe_momentum", "tune_rate", "tune_momentum", "tune_decay"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"transfer {name} is {getattr(self, name)!r}, expected >= 0",
                                  fix=f"pass for example {name}=0.01")


BUDGETS = {
    "official": TransferBudget(),
    "cpu": TransferBudget(probe_steps=2000, probe_batch_size=256, tune_steps=300,
                          tune_batch_size=128),
}


def pretrain(
    protocol: Protocol, images: jax.Array, labels: jax.Array, *, key: jax.Array,
    weights: jax.Array | None = None,
) -> tuple[Network, PyTree]:
    """Trains a fresh network by mean squared error to representations, without augmentation.

    Args:
      protocol: architecture, optimiser, epochs and batch size.
      images: [M, H, W, C] in model space.
      labels: [M, R].
      key: PRNG key.
      weights: [M] by which the images count; all the same by default.

    Returns:
      (network with R outputs, its variables).
    """
    network = backbone(protocol, images.shape[1:], labels.shape[-1])
    variables = train(
        network, protocol, size=images.shape[0], take=rows_of(images, labels), augmentation=None,
        supervision=own_labels(mean_squared_error), epochs=protocol.plan.epochs,
        batch_size=protocol.plan.batch_size, key=key, weights=weights,
    )
    return network, variables


def backbone(protocol: Protocol, shape: tuple[int, ...], outputs: int) -> Network:
    """The protocol's architecture for images of this shape, with that many outputs."""
    return build_network(protocol, DataSpec("representations", tuple(shape), outputs, ()))


def chunk() -> int:
    """Images per forward pass of a whole data set."""
    # Activations that fit the cache of a CPU; on an accelerator, its memory for all networks.
    return 32 if on_cpu() else 1000


def _head(key: jax.Array, width: int, num_classes: int) -> dict:
    kernel, bias = initialisers("torch", width)
    keys = jax.random.split(key)
    return {"kernel": kernel(keys[0], (width, num_classes)), "bias": bias(keys[1], (num_classes,))}


def linear_probe(
    train_features: jax.Array,
    train_labels: jax.Array,
    test_features: jax.Array,
    test_labels: jax.Array,
    *,
    num_classes: int,
    budget: TransferBudget,
    key: jax.Array,
) -> jax.Array:
    """Test accuracy of a softmax classifier on given features, see `trained_probe`.

    Args:
      train_features, test_features: [N, P] and [T, P].
      train_labels, test_labels: [N] and [T] int32.
      num_classes: K.
      budget: steps, batch size, rate and momentum.
      key: PRNG key.

    Returns:
      [] float32, a fraction.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> y = jnp.array([0, 1])
      >>> budget = TransferBudget(probe_steps=20, probe_batch_size=2)
      >>> float(linear_probe(x, y, x, y, num_classes=2, budget=budget, key=jax.random.key(0)))
      1.0
    """
    network = classifier(train_features.shape[-1], num_classes)
    variables = trained_probe(network, train_features, train_labels, budget=budget, key=key)
    predicted = jnp.argmax(network.apply(variables, test_features).logits, axis=-1)
    return jnp.mean(predicted == test_labels)


def trained_probe(
    network: Network, features: jax.Array, labels: jax.Array, *, budget: TransferBudget,
    key: jax.Array,
) -> PyTree:
    """Variables of a softmax classifier that was trained by SGD with momentum, its rate a cosine.

    Args:
      network: of `classifier`; starts from init(fold_in(key, 2000)).
      features: [N, P].
      labels: [N] int32.
      budget: steps, batch size, rate and momentum.
      key: PRNG key.
    """
    batch_size = min(budget.probe_batch_size, features.shape[0])
    rate = optax.cosine_decay_schedule(budget.probe_rate, budget.probe_steps)
    return fit(
        network, network.init(jax.random.fold_in(key, _HEAD)), take=rows_of(features, labels),
        key=jax.random.fold_in(key, _PROBE),
        batches=random_batches(features.shape[0], batch_size, budget.probe_steps),
        optimizer=optax.sgd(rate, momentum=budget.probe_momentum),
        supervision=own_labels(integer_cross_entropy), chunk=batch_size,
    ).variables


def classifier(width: int, num_classes: int) -> Network:
    """The dense layer alone, on features [B, P] in the place of images."""

    def apply(variables: PyTree, features: jax.Array, train: bool = False) -> Outputs:
        head = variables["params"]
        return Outputs(features @ head["kernel"] + head["bias"], features)

    return Network(lambda key: {"params": _head(key, width, num_classes)}, apply, "probe")


def with_new_head(network: Network, variables: PyTree, *, width: int, num_classes: int) -> Network:
    """The network that starts from given variables, with a fresh dense layer on its features.

    Args:
      network, variables: a trained network; its own head stays, unused.
      width: P, of its features.
      num_classes: K.

    Returns:
      A `Network` whose logits are [B, K].
    """
    def init(key: jax.Array) -> PyTree:
        params = {"body": variables["params"], "head": _head(key, width, num_classes)}
        return {**variables, "params": params}

    def apply(variables: PyTree, images: jax.Array, train: bool = False):
        body = {**variables, "params": variables["params"]["body"]}
        outputs = network.apply(body, images, train)
        head = variables["params"]["head"]
        return outputs._replace(logits=outputs.features @ head["kernel"] + head["bias"])

    return Network(init=init, apply=apply, name=network.name)


def fine_tune(
    network: Network,
    target: Split,
    *,
    normaliser: Normaliser,
    budget: TransferBudget,
    key: jax.Array,
) -> jax.Array:
    """Test accuracy after all weights have been trained on the labelled target.

    Args:
      network: with K outputs; its `init` gives the weights to start from, see `with_new_head`.
      target: real data, labelled.
      normaliser: from stored images to the model space of the pre-training.
      budget: steps (rounded to whole epochs), batch size, rates and views.
      key: PRNG key.

    Returns:
      [] float32, a fraction.
    """
    spec, count = target.train.spec, target.train.labels.shape[0]
    per_epoch = -(-count // min(budget.tune_batch_size, count))
    by = protocol(
        "fine_tune", optimizer="sgd", learning_rate=budget.tune_rate,
        momentum=budget.tune_momentum, weight_decay=budget.tune_decay,
        schedule="warmup_cosine", warmup=0, final_fraction=0.0,
    )

    variables = train(
        network, by, size=count, take=real_images(target.train, normaliser),
        supervision=own_labels(),
        augmentation=_crops(spec, normaliser, budget),
        epochs=max(1, round(budget.tune_steps / per_epoch)), batch_size=budget.tune_batch_size,
        key=key,
    )
    predicted = predict(network, variables, target.test.images, chunk=chunk(),
                        prepare=lambda x: normalise(normaliser, x))
    return jnp.mean(predicted == target.test.labels)


def _crops(spec: DataSpec, normaliser: Normaliser, budget: TransferBudget) -> Augmentation:
    """What networks see while they are fine-tuned: crops in black, and mirror images."""
    flip = spec.name not in DIGITS if budget.tune_flip is None else budget.tune_flip
    return views(spec.shape, padding=min(budget.tune_padding, *spec.shape[:2]), flip=flip,
                 fill=normalise(normaliser, jnp.zeros(spec.shape)))
