"""Lists and runs the benchmarks.

    python -m experiments.benchmarks                            lists the cases
    python -m experiments.benchmarks dm frepo --ipc 10
    python -m experiments.benchmarks trajectory --only checkpointed,two_pass --steps 50
    python -m experiments.benchmarks steps mtt --ipc 1 --protocol cpu --data fashion_mnist

To be run from the checkout's root. Every case but "steps" leaves a JSON file in
experiments/benchmarks/results; the files torch_*.py beside this one are the same in PyTorch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import tyro

from dd_jax.errors import DDJaxError, unknown
from experiments.benchmarks import (
    gradients,
    inner_loops,
    kernels,
    matching_memory,
    methods,
    relabelling,
    selection,
    steps,
)
from experiments.benchmarks.timing import Options

CASES: dict[str, tuple[str, Callable[[Options], None]]] = {
    "dm": ("a step of DM", partial(methods.against_plain, "dm")),
    "frepo": ("a step of FRePo", partial(methods.against_plain, "frepo")),
    "datadam": ("a step of DataDAM", partial(methods.alone, "datadam")),
    "ncfm": ("an iteration of NCFM", partial(methods.alone, "ncfm", bank=1, bank_steps=1)),
    "evaluation": ("five networks on a set", methods.evaluation),
    "convnet": ("a ConvNet's gradient on 256 images", methods.convnet),
    "herding": ("herding of 60,000 x 512 features", partial(selection.choice, "herding")),
    "k_center": ("k-center of the same", partial(selection.choice, "k_center")),
    "facility_location": ("facility location of the same",
                          partial(selection.choice, "facility_location")),
    "scores": ("scores of 60,000 images, beside PyTorch", selection.scores),
    "relabelling": ("labels of an epoch of views, beside PyTorch", relabelling.relabelling),
    "dc_update": ("DC's step on the images", gradients.RACES["dc_update"]),
    "dc_inner_loop": ("fifty steps on the set", gradients.RACES["dc_inner_loop"]),
    "idc": ("a step of IDC, all classes", gradients.RACES["idc"]),
    **{name.replace(" ", "_"): (f"kernel {name}", partial(kernels.kernel, name))
       for name in kernels.SIZES},
    "ridge": ("a ridge step on features", kernels.ridge),
    "trajectory": ("MTT's step by every adjoint", inner_loops.trajectory),
    "unrolled": ("an unrolled step by every adjoint", inner_loops.unrolled),
    "experts": ("experts' training", inner_loops.experts),
    "trajectory_memory": ("memory of MTT's step", inner_loops.trajectory_memory),
    "unrolled_memory": ("memory of an unrolled step", inner_loops.unrolled_memory),
    "distribution_memory": ("memory of distribution matching", matching_memory.distributions),
    "gradient_memory": ("memory of gradient matching", matching_memory.gradients),
    "kernel_memory": ("memory of KIP's gradient", matching_memory.kernel_ridge),
}


def main(words: list[str]) -> None:
    """Runs the cases that are named; lists all where none is."""
    if words[:1] == ["steps"]:
        steps.main(words[1:])
        return
    options = tyro.cli(Options, args=words, prog="python -m experiments.benchmarks")
    for name in options.cases:
        if name not in CASES:
            raise unknown("case", name, [*CASES, "steps"])
    for name in options.cases:
        CASES[name][1](options)
    if not options.cases:
        print("\n".join(f"{name:20} {about}" for name, (about, _) in CASES.items()))
        print(f"{'steps METHOD':20} steps per second of any method, as JSON")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DDJaxError as error:
        sys.exit(f"{type(error).__name__}: {error}")
