"""Meta-steps through a student's training by every adjoint, and experts' training.

"plain jax" is native convolutions, no chunks, no checkpoints. The student of an unrolled step is
gradient descent with momentum on the whole set, then 256 real images. "experts" is a part of an
epoch, of batches of 256. `torch_mtt.py` and `torch_unrolled.py` time the same in PyTorch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dd_jax import augment, nets, objectives, pools, train
from dd_jax.data import standardise
from dd_jax.types import Batch, SyntheticSet
from experiments.benchmarks.parts import embedded, grey_spec, loss_of, made_up_set
from experiments.benchmarks.timing import Options, Rival, Shape, memory, race

ADJOINTS = ("full", "checkpointed", "recursive", "two_pass")
COUNTS, WINDOWS, HORIZON = (10, 20, 50, 100, 200), (10, 20, 50, 100), 200
CLASSES, REAL, RATE, MOMENTUM = 10, 256, 0.01, 0.9


class NoExperts:
    """Stands for stored trajectories where segments are made up."""

    experts, epochs, parameters = (0,), 2, 0


def trajectory_step(name: str, steps: int, width: int, *, formulation: str = "auto"):
    """The network, and (images, rate, labels, segment, key) -> loss and two gradients."""
    network = nets.convnet(grey_spec(), width=width, formulation=formulation)
    learner = train.student(network, steps=steps, augmentation=augment.dsa(grey_spec().shape),
                            adjoint=train.adjoint_by_name(name))
    matching = objectives.trajectory_matching(
        learner, objectives.Segments(NoExperts, 2), starts=objectives.StartEpochs(0, 1))

    def loss(images, rate, labels, segment, key):
        return matching.loss(SyntheticSet(images, labels, rate), (), segment, key)[0]

    return network, jax.value_and_grad(loss, (0, 1))


def segment_and_set(network, ipc: int) -> tuple:
    """A made-up set and segment."""
    flat = jax.flatten_util.ravel_pytree(network.init(jax.random.key(0))["params"])[0]
    target = flat + 0.01 * jax.random.normal(jax.random.key(2), flat.shape)
    synthetic = made_up_set(ipc)
    segment = objectives.Segment(flat, target, (), jnp.zeros((), jnp.int32))
    return synthetic.images, jnp.array(RATE), synthetic.labels, segment, jax.random.key(2)


def unrolled_step(name: str, steps: int, width: int, *, window: int | None = None,
                  formulation: str = "auto"):
    """(images, labels, batch, key) -> loss and its gradient in the images."""
    network = nets.convnet(grey_spec(), width=width, formulation=formulation)
    learner = train.student(network, steps=steps, optimizer=optax.trace(MOMENTUM),
                            adjoint=train.adjoint_by_name(name))
    objective = objectives.unrolled(
        learner, pool=pools.fresh_pool(network), batch_size=REAL, rate=RATE,
        window=None if window is None else objectives.RandomWindow(window, steps))
    loss = loss_of(objective)

    def with_fresh_state(images, labels, batch, key):
        state = objective.init(key, SyntheticSet(images, labels))
        return loss(images, labels, state, batch, key)

    return jax.value_and_grad(with_fresh_state)


def batch_and_set(ipc: int) -> tuple:
    """A made-up set and real batch."""
    real = jax.random.normal(jax.random.key(3), (REAL, *grey_spec().shape))
    return *made_up_set(ipc)[:2], Batch(real, jnp.arange(REAL) % CLASSES), jax.random.key(2)


def _writings(adjoints) -> dict[str, dict]:
    return {"plain jax": dict(name="full", formulation="native"),
            **{name: dict(name=name) for name in adjoints}}


def trajectory(options: Options) -> None:
    """MTT's step by every adjoint."""
    width, rivals = options.width or 128, {}
    for name, how in _writings(ADJOINTS).items():
        network, fn = trajectory_step(steps=options.steps, width=width, **how)
        rivals[name] = Rival(fn, segment_and_set(network, options.ipc))
    race(f"trajectory_step_ipc{options.ipc}_n{options.steps}", rivals, options, width=width)


def unrolled(options: Options) -> None:
    """The loss after training on the set, by every adjoint."""
    width, args = options.width or 128, batch_and_set(options.ipc)
    rivals = {name: Rival(unrolled_step(steps=options.steps, width=width, **how), args)
              for name, how in _writings(ADJOINTS[:3]).items()}
    race(f"unrolled_step_ipc{options.ipc}_n{options.steps}", rivals, options, width=width)


def trajectory_memory(options: Options) -> None:
    """MTT's step by every adjoint against the student's steps."""
    width = options.width or 32

    def shapes():
        for name in ADJOINTS:
            for steps in COUNTS:
                network, fn = trajectory_step(name, steps, width)
                like = jax.eval_shape(lambda of=network: segment_and_set(of, options.ipc))
                yield Shape({"adjoint": name, "steps": steps, "ipc": options.ipc}, fn, like)

    memory(f"trajectory_memory_ipc{options.ipc}", shapes(), options, lines="adjoint",
           against="steps", width=width)


def unrolled_memory(options: Options) -> None:
    """Windows of W steps of a horizon of 200, by every adjoint."""
    width, like = options.width or 32, jax.eval_shape(lambda: batch_and_set(options.ipc))
    shapes = (Shape({"adjoint": name, "window": window, "ipc": options.ipc},
                    unrolled_step(name, HORIZON, width, window=window), like)
              for name in ADJOINTS[:3] for window in WINDOWS)
    memory(f"unrolled_memory_ipc{options.ipc}", shapes, options, lines="adjoint",
           against="window", width=width, horizon=HORIZON)


def _plain_gradient(network, epoch):
    """What `train.fit` takes as `gradient`, as one would first write it."""

    def gradient(variables, images, labels, weights, unchanged):
        def loss(params):
            logits = network.apply({"params": params}, images).logits
            return jnp.mean(optax.losses.softmax_cross_entropy(logits, labels))

        return jax.grad(loss)(variables["params"]), variables

    return gradient


def experts(options: Options, *, batches: int = 4) -> None:
    """Four batches of 256 of an expert's training."""
    data, width, size = embedded(), options.width or 128, REAL * batches
    take = train.real_images(data, standardise(data))
    views, rivals = train.augmented(augment.dsa(data.spec.shape)), {}
    for name, formulation, gradient in (("plain jax", "native", _plain_gradient),
                                        ("ours", "auto", None)):
        network = nets.convnet(data.spec, width=width, formulation=formulation)

        def fit(variables, key, network=network, gradient=gradient):
            return train.fit(network, variables, take=take, key=key, views=views,
                             batches=train.permuted_epochs(size, REAL), optimizer=optax.sgd(0.01),
                             gradient=gradient)[:2]

        rivals[name] = Rival(fit, (network.init(jax.random.key(0)), jax.random.key(1)))
    race("expert_training", rivals, options, width=width, batches=batches,
         derived=lambda medians: {"seconds_per_epoch_of_60000": {
             name: round(v * 60_000 / size, 1) for name, v in medians.items()}})
