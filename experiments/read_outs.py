"""Saved sets by kernel ridge regression, whatever kernel they were made for, beside random images.

    python -m experiments.read_outs runs/a/set.safetensors runs/b/set.safetensors --kernel fc3

To be run from the checkout's root; one file of figures for each set. A pooled ConvNet's kernel of a
hundred images and ten thousand takes minutes on two cores, and as long again for each random draw.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import jax
import tyro

from dd_jax import evaluate, io
from dd_jax.cli.allocator import keep_memory
from dd_jax.data import load
from dd_jax.errors import DDJaxError
from dd_jax.report.result import device_name, git_commit, percent, write_result
from dd_jax.versions import versions


@dataclasses.dataclass(frozen=True)
class Options:
    """Which sets and kernel.

    Attributes:
      sets: files that this library saved.
      kernel: a name in `kernels.named`.
      kind: "ntk" or "nngp".
      ridge: times the kernel's mean diagonal.
      draws: of random images; 0 for none.
      seed: of these.
      data: the sets' data, as on the command line.
      into: folder of the figures.
    """

    sets: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional]
    kernel: str = "fc3"
    kind: str = "ntk"
    ridge: float = 1e-6
    draws: int = 3
    seed: int = 1
    data: str = "fashion_mnist"
    into: pathlib.Path = pathlib.Path("experiments/comparisons")


def figures(path: pathlib.Path, options: Options, data) -> dict:
    """The read-out of one set, and of random images of its budget."""
    by = evaluate.ReadOut(options.kernel, kind=options.kind, ridge=options.ridge)
    distilled = io.load(path)
    own = evaluate.read_out(distilled, data.test, by=by)
    found = {"set": path.parent.name, "method": distilled.recipe["method"], "ipc": distilled.ipc,
             "data": data.test.spec.name, **dataclasses.asdict(by), "accuracy": own.mean,
             "seconds": round(own.seconds, 1)}
    if options.draws:
        random = evaluate.read_out_random(distilled, data, key=jax.random.key(options.seed),
                                          seeds=options.draws, by=by)
        found |= {"random_mean": random.mean, "random_std": random.std, "draws": options.draws}
    return found


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else list(words)
    options = tyro.cli(Options, args=words)
    keep_memory()
    try:
        data = load(options.data)
        for path in options.sets:
            found = figures(path, options, data)
            device = device_name().split()[0].lower()
            name = f"read_out_{found['method']}_ipc{found['ipc']:g}_{options.kernel}_{device}.json"
            write_result(options.into / name, {
                **found, "device": device_name(), "versions": versions(),
                "git_commit": git_commit(),
                "command": shlex.join(["python", "-m", "experiments.read_outs", *words])})
            print(f"{found['method']} {found['ipc']:g} per class, {options.kernel}: "
                  f"{percent(found['accuracy'])}, random "
                  f"{percent(found.get('random_mean'), found.get('random_std'))}", flush=True)
    except DDJaxError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
