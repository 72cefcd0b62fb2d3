"""Fashion-MNIST, one cell for each method and budget; every cell leaves its JSON file.

    python -m experiments.fashion_mnist                       all cells of the CPU protocol
    python -m experiments.fashion_mnist --only frepo_ipc1 --protocol official

To be run from the checkout's root.

The CPU protocol is for two cores: about five minutes of distillation and two of evaluation a cell.
Each cell is the command `python -m dd_jax distill METHOD --data fashion_mnist --ipc N --full ...`,
so a cell that was stopped goes on where it was. What a method needs beforehand, such as the experts
that mtt, tesla and att share, is made by the first cell that asks and kept in runs/artefacts.
Expected accuracies: experiments/RESULTS.md.
"""

from __future__ import annotations

import dataclasses

import tyro

from dd_jax.cli.main import main as command_line
from dd_jax.errors import nearest

METHODS = ("frepo", "dm", "kip", "label_solve", "rfad", "rcig", "dc", "dsa", "dcc", "dsac", "idc",
           "dream", "fyi", "cafe", "idm", "datadam", "wmdd", "ncfm", "m3d", "mtt", "ftd", "tesla",
           "datm", "att", "ast", "dd", "soft_label_dd", "label_distillation", "rat_bptt",
           "linba")
VARIANTS = {"": (), "_flipped": ("--flipped",), "_representative": ("--representative", "256")}
CELLS = [(method, "", ipc) for ipc in (1, 10) for method in METHODS] + [("krr_st", "", 10)]
CELLS += [("podd", "", ipc) for ipc in (0.3, 0.5, 1)]
CELLS += [(method, variant, 1) for method in ("frepo", "dm")
          for variant in ("_flipped", "_representative")]


@dataclasses.dataclass(frozen=True)
class Options:
    """Which cells to run.

    Attributes:
      only: one cell, such as frepo_ipc1; all by default.
      protocol: "cpu" or "official".
      data: as on the command line.
      full: train on the full data as well (cached; leave it off with "official" on a CPU).
      read_out: also by the method's own kernel (leave it off for rfad_ipc10 on a CPU).
    """

    only: str | None = None
    protocol: str = "cpu"
    data: str = "fashion_mnist"
    full: bool = True
    read_out: bool = True


def main(options: Options) -> None:
    names = [f"{method}{variant}_ipc{ipc}" for method, variant, ipc in CELLS]
    if options.only not in (None, *names):
        raise SystemExit(f"unknown cell {options.only!r}: {nearest(options.only, names)}")
    for (method, variant, ipc), cell in zip(CELLS, names):
        if options.only not in (None, cell):
            continue
        name = f"{cell}_{options.protocol}"
        code = command_line([
            "distill", method, "--data", options.data, "--ipc", str(ipc),
            "--protocol", options.protocol, "--full" if options.full else "--no-full",
            "--read-out" if options.read_out else "--no-read-out", *VARIANTS[variant],
            "--workdir", f"runs/{options.data}_{name}",
            "--json", f"experiments/results/{options.data}/{name}.json",
        ])
        if code:
            raise SystemExit(code)


if __name__ == "__main__":
    main(tyro.cli(Options))
