"""Every member of the library that the law suite runs over, on 8x8 images of two classes.

A new objective or parameterization is added here once and meets every law.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from dd_jax import augment, contrib, kernels, nets, objectives, pools, synthetic, train
from dd_jax.data import from_arrays, normalise, standardise
from dd_jax.pools.queue import accuracy_percent
from dd_jax.types import DataSpec, Network, Objective, SyntheticSet

SHAPE = (8, 8, 1)
CLASSES = 2
SPEC = DataSpec("toy", SHAPE, CLASSES, ("dark top", "dark bottom"))


@functools.cache
def toy_data():
    """Two classes that a network can tell apart: bright upper or bright lower half, with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(64) % CLASSES
    images = rng.integers(0, 60, (64, *SHAPE))
    images[labels == 0, :4] += 150
    images[labels == 1, 4:] += 150
    with jax.ensure_compile_time_eval():  # it is kept, wherever it was first asked for
        return from_arrays(images.astype(np.uint8), labels, name="toy", num_classes=CLASSES)


def start(kind: str = "noise", *, labels: str = "centred") -> SyntheticSet:
    """A synthetic set of two images per class."""
    rng = np.random.default_rng(1)
    images = {
        "noise": rng.normal(size=(4, *SHAPE)),
        "constant": np.ones((4, *SHAPE)),
        "real": np.asarray(toy_data().images)[:4] / 255.0,
    }[kind]
    hard = jnp.repeat(jnp.arange(CLASSES), 2)
    return SyntheticSet(jnp.asarray(images, jnp.float32),
                        synthetic.targets(hard, CLASSES, kind=labels))


def _mlp():
    return nets.mlp(SPEC, width=16)


def _convnet(norm="instance"):
    return nets.convnet(SPEC, depth=1, width=4, norm=norm)


def _feature_ridge_ageing():
    network = nets.convnet_doubling(SPEC, depth=2, width=4)
    pool = pools.ageing_pool(network, size=3, max_age=2)
    return objectives.feature_ridge(network, pool, batch_size=32)


def _feature_ridge_fresh():
    network = _mlp()
    return objectives.feature_ridge(network, pools.fresh_pool(network), batch_size=32, flip=True,
                                    mode="trace_sum", margin=False)


def _mean_embedding():
    network = _convnet()
    return objectives.mean_embedding(network, pools.fresh_pool(network), batch_size=16,
                                     augmentation=augment.dsa(SHAPE))


def _mean_embedding_batch_norm():
    network = _convnet("batch")
    return objectives.mean_embedding(network, pools.fresh_pool(network), batch_size=16)


def _weighted_sum():
    return objectives.weighted_sum([_feature_ridge_fresh(), _mean_embedding()], [1.0, 0.1])


def _kernel_ridge():
    return objectives.kernel_ridge(kernels.named("fc1"), batch_size=32)


def _kernel_ridge_blockwise():
    kernel = kernels.blockwise(kernels.named("convnet1"), block=3)
    return objectives.kernel_ridge(kernel, batch_size=8)


def _random_feature_ridge():
    network = nets.convnet(SPEC, depth=1, width=4, norm="none", init_style="gaussian")
    return objectives.random_feature_ridge(network, pools.fresh_pool(network), networks=2,
                                           batch_size=32)


def _linearised_ridge(**options):
    network = nets.mlp(SPEC, width=8)
    pool = pools.ageing_pool(network, size=2, max_age=4, train_steps=(1, 3))
    return objectives.linearised_ridge(network, pool, batch_size=32, l2_rate=5e-2, **options)


def _representation_ridge():
    wise = nets.mlp(SPEC, width=2, depth=2)
    teacher = objectives.representations(wise, wise.init(jax.random.key(7)))
    network = _convnet("batch")
    return objectives.representation_ridge(
        network, pools.pretrained_pool(network, size=3, max_age=4), teacher, batch_size=32,
        augmentation=augment.views(SHAPE, padding=1),
    )


def _representative_mean_embedding():
    data = toy_data()
    network = _convnet()
    plain = objectives.mean_embedding(network, pools.fresh_pool(network), batch_size=8)
    return objectives.representative_batches(plain, data, normaliser=standardise(data), every=3,
                                             candidates=16)


def _representative_feature_ridge():
    data = toy_data()
    network = nets.mlp(SPEC, width=64)
    pool = pools.ageing_pool(network, size=2, max_age=4)
    plain = objectives.feature_ridge(network, pool, batch_size=17)
    return objectives.representative_batches(plain, data, normaliser=standardise(data), every=2)


def _layer_matching(**options):
    network = _convnet()
    pool = pools.plateau_pool(network, max_uses=3, max_epochs=4, window=2)
    return _on_probabilities(objectives.layer_matching(
        network, pool, weights=(1.0,), batch_size=16, measure_size=4, **options))


def _bank():
    network = _convnet()
    ends = [jax.vmap(network.init)(jax.random.split(jax.random.key(s), 3)) for s in range(2)]
    return network, tuple(ends)


def _characteristic(probe, **options):
    network, bank = _bank()
    return objectives.distribution_matching(
        network, pools.bank_pool(bank), objectives.characteristic_function(probe, **options),
        batch_size=16, augmentation=augment.dsa(SHAPE))


def _classification():
    network, bank = _bank()
    return _on_probabilities(objectives.classification(
        network, pools.bank_pool(bank, interpolated=False), augmentation=augment.dsa(SHAPE)))


def _barycentre_matching(**options):
    data, network = toy_data(), _convnet("batch")
    variables = network.init(jax.random.key(7))
    found = train.class_targets(network, variables, data, 2, normaliser=standardise(data),
                                key=jax.random.key(8), batch_size=16)
    return objectives.barycentre_matching(
        network, variables, found, augmentation=augment.crop_flip_roll(SHAPE, area=0.5, roll=2),
        **options)


def _on_probabilities(objective):
    """The suite's labels are centred, which cross-entropy does not know."""

    def shifted(fn):
        return lambda synthetic, *args: fn(
            synthetic._replace(labels=synthetic.labels + 1 / CLASSES), *args)

    return objective._replace(loss=shifted(objective.loss), advance=shifted(objective.advance))


def _distribution_matching(discrepancy, norm="instance", **options):
    network = nets.convnet(SPEC, depth=2, width=4, norm=norm)
    pool = pools.inner_trained_pool(network, uses=3, epochs=1)
    return _on_probabilities(objectives.distribution_matching(
        network, pool, discrepancy, batch_size=16, augmentation=augment.dsa(SHAPE), **options))


class Walks:
    """Trajectories in memory: neighbours of one random network go down its first gradient."""

    def __init__(self, network, *, experts=3, epochs=4, seed=0):
        rng = np.random.default_rng(seed)
        start, restore = ravel_pytree(network.init(jax.random.key(seed))["params"])
        images = normalise(standardise(toy_data()), toy_data().images[:16])
        labels = synthetic.targets(toy_data().labels[:16], CLASSES, kind="one_hot")

        def risk(flat):
            logits = network.apply({"params": restore(flat)}, images).logits
            return jnp.mean(optax.losses.softmax_cross_entropy(logits, labels))

        way = -np.arange(epochs + 1)[:, None] * np.asarray(jax.grad(risk)(start))
        rows = start + way + 0.02 * rng.normal(size=(experts, epochs + 1, start.size))
        self.rows = np.asarray(rows, np.float32)
        self.experts, self.epochs, self.parameters = tuple(range(experts)), epochs, start.size

    def read(self, expert, epoch):
        return self.rows[expert, epoch]


def _trajectory_matching(network=None, *, adjoint="full", batch_size=None, optimizer=None,
                         waypoints=False, **options):
    network = network or nets.mlp(SPEC, width=8, depth=2)
    learner = train.student(network, steps=4, batch_size=batch_size, optimizer=optimizer,
                            adjoint=train.adjoint_by_name(adjoint))
    segments = objectives.Segments(Walks(network), 2, waypoints=waypoints)
    return _on_probabilities(_at_rate(objectives.trajectory_matching(
        learner, segments, starts=objectives.StartEpochs(0, 2), **options), 0.2))


def _unrolled(*, optimizer=None, plan=None, window=None, adjoint="checkpointed", rate=0.2,
              pool=None, **options):
    network = nets.mlp(SPEC, width=8, depth=2)
    learner = train.student(network, steps=4, plan=plan, optimizer=optimizer,
                            adjoint=train.adjoint_by_name(adjoint))
    return _on_probabilities(objectives.unrolled(
        learner, pool=pool or pools.fresh_pool(network), batch_size=16, window=window, rate=rate,
        **options))


def _restarted():
    """Its network takes steps on the student's batches."""
    pool = pools.restarting_pool(nets.mlp(SPEC, width=8, depth=2), window=3)
    return _unrolled(pool=pool, plan=train.permuted(2), shared_batch=True)


def _waypoints():
    """A shaken kernel, heavy ball, and a rate that follows the epoch."""
    return _trajectory_matching(
        one_convolution(), waypoints=True, loss=objectives.waypoints("adaptive"), shake=0.1,
        optimizer=optax.trace(0.5), rate_schedule=lambda epoch: 1.0 + 0.5 * epoch)


def one_convolution(width=8):
    """A perceptron whose first matrix has the four axes of a convolution of the whole image."""
    plain = nets.mlp(SPEC, width=width, depth=2)

    def shaped(params, *shape):
        kernel = params["hidden0"]["kernel"].reshape(*shape, width)
        return {**params, "hidden0": {**params["hidden0"], "kernel": kernel}}

    def apply(variables, images, train=False):
        return plain.apply({"params": shaped(variables["params"], 64)}, images, train)

    return Network(lambda key: {"params": shaped(plain.init(key)["params"], *SHAPE)}, apply)


def _at_rate(objective, rate):
    """The suite's sets have no learning rate."""

    def rated(synthetic):
        return synthetic._replace(learning_rate=jnp.asarray(rate, synthetic.images.dtype))

    return objective._replace(
        init=lambda key, synthetic: objective.init(key, rated(synthetic)),
        loss=lambda synthetic, *args: objective.loss(rated(synthetic), *args))


def _queue():
    network = _convnet()
    pool = pools.queue_pool(network, start=2, capacity=3, every=40, trained=1, steps=2,
                            batch_size=4, forget=40)
    return _on_probabilities(objectives.distribution_matching(
        network, pool, objectives.mean_features(), batch_size=16, train_rows=8,
        augmentation=augment.dsa(SHAPE),
        supervision=lambda state: 0.01 * accuracy_percent(state)))


def _gradient_matching(norm="instance", **options):
    network = _convnet(norm)
    pool = pools.inner_trained_pool(network, uses=3, epochs=2, batch_size=3,
                                    augmentation=augment.dsa(SHAPE), mix=0.5)
    matching = objectives.gradient_matching(network, pool, batch_size=8,
                                            augmentation=augment.dsa(SHAPE), **options)

    return _on_probabilities(matching)


def _loss_alone():
    """Nothing but a loss: the class means of pixels meet those of a class-balanced batch."""

    def loss(synthetic, state, batch, key):
        made, real = (jnp.mean(x.reshape(CLASSES, -1, *SHAPE), axis=1)
                      for x in (synthetic.images, batch.images))
        return jnp.sum((made - real) ** 2), {}

    return Objective(loss)


OBJECTIVES = {
    "gradient_matching": _gradient_matching,
    "gradient_matching/batch_norm": lambda: _gradient_matching("batch", distance="squared"),
    "gradient_matching/jointly": lambda: _gradient_matching(class_wise=False),
    "gradient_matching/warm_up": lambda: _gradient_matching(class_wise=lambda s: s.renewals < 2),
    "class_by_class/gradient_matching": lambda: objectives.class_by_class(
        _gradient_matching(train_rows=6, most=1, distance="conv_squared")),
    "alternating": lambda: objectives.alternating([_feature_ridge_fresh(), _mean_embedding()],
                                                  [1, 2]),
    "distribution_matching/attention": lambda: _distribution_matching(objectives.attention()),
    "distribution_matching/attention_batch_norm": lambda: _distribution_matching(
        objectives.attention(power=1), "batch"),
    "distribution_matching/gaussian": lambda: _distribution_matching(
        objectives.kernel_means(), most=1),
    "distribution_matching/polynomial": lambda: _distribution_matching(
        objectives.kernel_means("polynomial")),
    "distribution_matching/supervised": lambda: _distribution_matching(
        objectives.mean_features(), supervision=lambda state: 0.5, train_rows=6),
    "distribution_matching/queue": _queue,
    "mirrored/mean_embedding": lambda: objectives.mirrored(_mean_embedding()),
    "distribution_matching/characteristic": lambda: _characteristic(
        objectives.normal_frequencies(16), alpha=0.3, beta=0.7),
    "distribution_matching/learned_frequencies": lambda: _characteristic(
        objectives.learned_frequencies(32)),
    "classification": _classification,
    "class_by_class/classification": lambda: objectives.class_by_class(_classification()),
    "class_by_class/layer_matching": lambda: objectives.class_by_class(
        _layer_matching(discrimination=0.0)),
    "barycentre_matching": _barycentre_matching,
    "barycentre_matching/squared": lambda: _barycentre_matching(
        distance="squared", block=1, label_weight=0.0),
    "layer_matching": _layer_matching,
    "feature_ridge/ageing": _feature_ridge_ageing,
    "feature_ridge/fresh": _feature_ridge_fresh,
    "mean_embedding": _mean_embedding,
    "mean_embedding/batch_norm": _mean_embedding_batch_norm,
    "kernel_ridge": _kernel_ridge,
    "kernel_ridge/blockwise": _kernel_ridge_blockwise,
    "loss_alone": _loss_alone,
    "linearised_ridge/exact": lambda: _linearised_ridge(cap=False, solver="cg", solver_steps=60),
    "linearised_ridge/official": _linearised_ridge,
    "random_feature_ridge": _random_feature_ridge,
    "representation_ridge": _representation_ridge,
    "representative/feature_ridge": _representative_feature_ridge,
    "representative/mean_embedding": _representative_mean_embedding,
    "trajectory_matching": lambda: _trajectory_matching(batch_size=3),
    "trajectory_matching/nearest": lambda: _trajectory_matching(loss=objectives.nearest()),
    "trajectory_matching/relabel": lambda: _trajectory_matching(relabel=True),
    "trajectory_matching/two_pass": lambda: _trajectory_matching(adjoint="two_pass"),
    "trajectory_matching/waypoints": _waypoints,
    "unrolled": lambda: _unrolled(networks=2),
    "unrolled/adam": lambda: _unrolled(
        optimizer=optax.scale_by_adam(eps_root=1e-8), rate=0.02, per_class=True),
    "unrolled/momentum": lambda: _unrolled(
        optimizer=optax.trace(0.9), rate=0.05, plan=train.class_rows(CLASSES, 1),
        adjoint="recursive"),
    "unrolled/restarted": _restarted,
    "unrolled/window": lambda: _unrolled(window=objectives.RandomWindow(2, 4, hold=2)),
    "weighted_sum": _weighted_sum,
}

# Objectives whose derivative is, by design, not that of their value.
BIASED = {
    "distribution_matching/gaussian": "the bandwidth is a constant of the derivative",
    "trajectory_matching/relabel": "labels follow the images, as constants of the derivative",
    "trajectory_matching/two_pass": "every step takes the adjoint of the last one",
    "unrolled/window": "the steps before the window are constants of the derivative",
    "linearised_ridge/official": "both systems are solved in part, and the implicit part is capped",
}

# What makes an objective of one objective, whose traits it keeps.
COMBINATORS = {
    "class_by_class": objectives.class_by_class,
    "compared": lambda objective: objectives.compared(objective, objective),
    "conditioned": lambda objective: objectives.conditioned(objective, start(), CLASSES),
    "mirrored": objectives.mirrored,
    "representative_batches": lambda objective: objectives.representative_batches(
        objective, toy_data(), normaliser=standardise(toy_data()), candidates=16),
    "weighted_sum": lambda objective: objectives.weighted_sum([objective], [1.0]),
}

PARAMETERIZATIONS = {
    "pixels/fixed": lambda: synthetic.pixels(labels="fixed"),
    "pixels/learned": lambda: synthetic.pixels(labels="learned"),
    "pixels/soft": lambda: synthetic.pixels(labels="soft"),
    "multi_formation": lambda: synthetic.multi_formation(synthetic.pixels(labels="learned")),
    "multi_formation/multi": lambda: synthetic.multi_formation(synthetic.pixels(), factor=3,
                                                               variant="multi"),
    "frequency": lambda: contrib.frequency(np.ones((2, 8, 8), bool), labels="soft"),
    "hallucinated": lambda: contrib.hallucinated(synthetic.pixels(), hallucinators=2),
    "poster": lambda: synthetic.poster(shape=(10, 12), image_shape=(8, 8, 1), patches=(3, 5),
                                       class_grid=(1, 2)),
    "poster/learned": lambda: synthetic.poster(
        shape=(10, 12), image_shape=(8, 8, 1), patches=(3, 5), class_grid=(1, 2),
        labels="learned", label_ipc=3),
    "addressed": lambda: synthetic.addressed(bases=3, rows=4),
    "addressed/per_class": lambda: synthetic.addressed(bases=3, rows=4, per_class=True),
    "preconditioned": lambda: synthetic.preconditioned(synthetic.pixels(labels="learned")),
}

# Parameterizations that cannot show any given images.
NOT_ONTO = {
    "multi_formation": "shows four images for each that it stores",
    "multi_formation/multi": "shows fourteen images for each that it stores",
    "poster": "shows patches of one picture, which starts from noise",
    "poster/learned": "shows patches of one picture, which starts from noise",
    "addressed": "shows combinations of random bases",
    "addressed/per_class": "shows combinations of random bases",
    "hallucinated": "shows two images for each that it stores, through random filters",
}
