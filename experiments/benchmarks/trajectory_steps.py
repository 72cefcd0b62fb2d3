"""Steps of MTT by every adjoint, their memory, and experts' training.

    python -m experiments.benchmarks.trajectory_steps memory [--width 32] [--ipc 1]
    python -m experiments.benchmarks.trajectory_steps time [--width 128] [--ipc 1] [--steps 10]
    python -m experiments.benchmarks.trajectory_steps experts [--width 128]

"memory" is the compiler's own figure for N = 10, 20, 50, 100, 200 student steps, nothing is run; it
leaves a plot beside its JSON. "time" runs the adjoints in turns, beside "plain jax": native
convolutions, no chunks, no checkpoints. "experts" is a part of an epoch, of batches of 256, beside
the same in plain JAX. `torch_mtt.py` times the same step and training in PyTorch.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import dd_jax as dd
from dd_jax import augment, nets, objectives, train
from dd_jax.cli.allocator import keep_memory
from dd_jax.data import standardise
from dd_jax.train.segments import Segment
from dd_jax.types import SyntheticSet
from experiments.benchmarks.memory import grey_spec, plot_memory, temporary_bytes
from experiments.benchmarks.timing import in_turns, report, write

COUNTS = (10, 20, 50, 100, 200)
ADJOINTS = ("full", "checkpointed", "recursive", "two_pass")
CLASSES, BATCH = 10, 256


class NoExperts:
    """Stands for stored trajectories where segments are made up."""

    experts, epochs, parameters = (0,), 2, 0


def step_of(name: str, steps: int, width: int, *, formulation: str = "auto",
            augmented: bool = True):
    """(images, labels, rate, start, target, key) -> loss and gradients in images and rate."""
    spec = grey_spec(CLASSES)
    network = nets.convnet(spec, width=width, formulation=formulation)
    augmentation = augment.dsa(spec.shape) if augmented else None
    learner = train.student(network, steps=steps, augmentation=augmentation,
                            adjoint=train.adjoint_by_name(name))
    matching = objectives.trajectory_matching(
        learner, objectives.Segments(NoExperts, 2), starts=objectives.StartEpochs(0, 1))

    def loss(images, rate, labels, start, target, key):
        segment = Segment(start, target, (), jnp.zeros((), jnp.int32))
        return matching.loss(SyntheticSet(images, labels, rate), (), segment, key)[0]

    return network, jax.value_and_grad(loss, (0, 1))


def arguments(network, ipc: int) -> tuple:
    """A made-up set and segment."""
    flat = jax.flatten_util.ravel_pytree(network.init(jax.random.key(0))["params"])[0]
    keys = jax.random.split(jax.random.key(1), 2)
    images = jax.random.normal(keys[0], (CLASSES * ipc, *grey_spec(CLASSES).shape))
    labels = jax.nn.one_hot(jnp.repeat(jnp.arange(CLASSES), ipc), CLASSES)
    target = flat + 0.01 * jax.random.normal(keys[1], flat.shape)
    return images, jnp.array(0.01), labels, flat, target, jax.random.key(2)


def memory(options) -> None:
    rows = []
    for name in ADJOINTS:
        for steps in COUNTS:
            network, fn = step_of(name, steps, options.width)
            like = jax.eval_shape(lambda network=network: arguments(network, options.ipc))
            used = temporary_bytes(fn, *like)
            rows.append({"adjoint": name, "steps": steps, "ipc": options.ipc, "bytes": used})
            print(f"{name:14} N = {steps:3}  {used / 1e6:9.1f} MB", flush=True)
    record = write(f"trajectory_memory_ipc{options.ipc}", {"width": options.width, "rows": rows})
    plot_memory(record, "steps", "student steps N")


def timed(options) -> None:
    kept = keep_memory()
    cases = {"plain jax": dict(name="full", formulation="native")}
    cases |= {name: dict(name=name) for name in ADJOINTS}
    if options.only:
        cases = {name: cases[name] for name in options.only.split(",")}
    calls, first = {}, {}
    for name, case in cases.items():
        network, fn = step_of(steps=options.steps, width=options.width, **case)
        compiled, given = jax.jit(fn), arguments(network, options.ipc)
        calls[name] = lambda compiled=compiled, given=given: compiled(*given)
        first[name] = in_turns({name: calls[name]}, rounds=1)[name][0]
    seconds = in_turns(calls, rounds=options.rounds)
    suffix = "_" + "_".join(cases) if options.only else ""
    report(f"trajectory_step_ipc{options.ipc}_n{options.steps}{suffix}", seconds,
           compile_seconds={k: max(0.0, first[k] - min(v)) for k, v in seconds.items()},
           baseline=next(iter(cases)), width=options.width, allocator_keeps_memory=kept)


def experts(options) -> None:
    kept = keep_memory()
    data = dd.data.load("embedded").train
    normaliser, size = standardise(data), BATCH * options.batches
    augmentation = augment.dsa(data.spec.shape)
    optimizer = optax.sgd(0.01)

    def plain(network, epoch):
        def gradient(variables, images, labels, weights, unchanged):
            def loss(params):
                logits = network.apply({"params": params}, images).logits
                return jnp.mean(optax.losses.softmax_cross_entropy(logits, labels))

            return jax.grad(loss)(variables["params"]), variables

        return gradient

    calls, first = {}, {}
    formulations = {"plain jax": "native", "ours": "auto"}
    if options.only:
        formulations = {options.only: formulations[options.only]}
    for name, formulation in formulations.items():
        network = nets.convnet(data.spec, width=options.width, formulation=formulation)
        variables = network.init(jax.random.key(0))

        @jax.jit
        def run(variables, key, network=network, name=name):
            return train.fit(network, variables, take=train.real_images(data, normaliser),
                             batches=train.permuted_epochs(size, BATCH), optimizer=optimizer,
                             key=key, views=train.augmented(augmentation),
                             gradient=plain if name == "plain jax" else None)[:2]

        calls[name] = lambda run=run, variables=variables: run(variables, jax.random.key(1))
        first[name] = in_turns({name: calls[name]}, rounds=1)[name][0]
    seconds = in_turns(calls, rounds=options.rounds)
    epoch = {k: round(float(np.median(v)) * 60_000 / size, 1) for k, v in seconds.items()}
    report("expert_training", seconds, baseline=next(iter(calls)), width=options.width,
           compile_seconds={k: max(0.0, first[k] - min(v)) for k, v in seconds.items()},
           batches=options.batches, seconds_per_epoch_of_60000=epoch, allocator_keeps_memory=kept)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("memory", "time", "experts"))
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--width", type=int)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="names of cases, with commas between adjoints")
    options = parser.parse_args()
    options.width = options.width or (32 if options.case == "memory" else 128)
    {"memory": memory, "time": timed, "experts": experts}[options.case](options)


if __name__ == "__main__":
    main()
