"""A meta-step through unrolled training: its time by every adjoint, its memory by the window.

    python -m experiments.benchmarks.unrolled_steps memory [--width 32] [--ipc 1]
    python -m experiments.benchmarks.unrolled_steps time [--width 128] [--ipc 1] [--steps 10]

The student is gradient descent with momentum on the whole set, then 256 real images. "memory" is
the compiler's own figure for windows of W = 10, 20, 50, 100 steps of a horizon of 200, nothing is
run; it leaves a plot beside its JSON. "time" runs the adjoints in turns, beside "plain jax":
native convolutions, no chunks, no checkpoints. `torch_unrolled.py` times the same in PyTorch.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import optax

from dd_jax import nets, objectives, pools, train
from dd_jax.cli.allocator import keep_memory
from dd_jax.types import Batch, SyntheticSet
from experiments.benchmarks.memory import grey_spec, plot_memory, temporary_bytes
from experiments.benchmarks.timing import in_turns, report, write

WINDOWS, HORIZON = (10, 20, 50, 100), 200
ADJOINTS = ("full", "checkpointed", "recursive")
CLASSES, REAL, RATE, MOMENTUM = 10, 256, 0.01, 0.9


def step_of(name: str, steps: int, width: int, *, window: int | None = None,
            formulation: str = "auto"):
    """(images, labels, real images, real labels, key) -> loss and its gradient in the images."""
    network = nets.convnet(grey_spec(CLASSES), width=width, formulation=formulation)
    learner = train.student(network, steps=steps, optimizer=optax.trace(MOMENTUM),
                            adjoint=train.adjoint_by_name(name))
    objective = objectives.unrolled(
        learner, pool=pools.fresh_pool(network), batch_size=REAL, rate=RATE,
        window=None if window is None else objectives.RandomWindow(window, steps))

    def loss(images, labels, real, classes, key):
        synthetic = SyntheticSet(images, labels)
        state = objective.init(key, synthetic)
        return objective.loss(synthetic, state, Batch(real, classes), key)[0]

    return jax.value_and_grad(loss)


def arguments(ipc: int) -> tuple:
    """A made-up set and real batch."""
    keys = jax.random.split(jax.random.key(1), 2)
    shape = grey_spec(CLASSES).shape
    labels = jax.nn.one_hot(jnp.repeat(jnp.arange(CLASSES), ipc), CLASSES)
    return (jax.random.normal(keys[0], (CLASSES * ipc, *shape)), labels,
            jax.random.normal(keys[1], (REAL, *shape)), jnp.arange(REAL) % CLASSES,
            jax.random.key(2))


def memory(options) -> None:
    rows, like = [], jax.eval_shape(lambda: arguments(options.ipc))
    for name in ADJOINTS:
        for window in WINDOWS:
            fn = step_of(name, HORIZON, options.width, window=window)
            used = temporary_bytes(fn, *like)
            rows.append({"adjoint": name, "window": window, "ipc": options.ipc, "bytes": used})
            print(f"{name:14} W = {window:3}  {used / 1e6:9.1f} MB", flush=True)
    record = write(f"unrolled_memory_ipc{options.ipc}",
                   {"width": options.width, "horizon": HORIZON, "rows": rows})
    plot_memory(record, "window", "differentiated steps W")


def timed(options) -> None:
    kept = keep_memory()
    cases = {"plain jax": dict(name="full", formulation="native")}
    cases |= {name: dict(name=name) for name in ADJOINTS}
    if options.only:
        cases = {options.only: cases[options.only]}
    given, calls, used = arguments(options.ipc), {}, {}
    for name, case in cases.items():
        lowered = jax.jit(step_of(steps=options.steps, width=options.width, **case)).lower(*given)
        compiled = lowered.compile()
        used[name] = compiled.memory_analysis().temp_size_in_bytes
        calls[name] = lambda compiled=compiled: compiled(*given)
        in_turns({name: calls[name]}, rounds=1)  # the first call pages its memory in
    seconds = in_turns(calls, rounds=options.rounds)
    suffix = f"_{options.only}" if options.only else ""
    report(f"unrolled_step_ipc{options.ipc}_n{options.steps}{suffix}", seconds, compile_seconds={},
           baseline=next(iter(cases)), width=options.width, allocator_keeps_memory=kept,
           working_memory_bytes=used)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("memory", "time"))
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--width", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only")
    options = parser.parse_args()
    options.width = options.width or (32 if options.case == "memory" else 128)
    {"memory": memory, "time": timed}[options.case](options)


if __name__ == "__main__":
    main()
