"""Renders experiments/RESULTS.md from the files under experiments/results and nothing else.

    python -m experiments.table
"""

from __future__ import annotations

import pathlib

from dd_jax.report.result import markdown_table, read_result
from dd_jax.store.atomic import write_atomically

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
TUNING = "tuning"  # scans of `experiments.tune`, which are no results
HEADER = """# Results

Made by `python -m experiments.table` from the files under `experiments/results`; do not edit.
`python -m experiments.campaign` makes those of protocol "cpu".

Accuracies are percent, mean and deviation over fresh networks. "random" is random real images of
the same budget under the same protocol; "full data" is the ceiling of the row's own test: one
network trained on the whole training set for `full_epochs` of the protocol. "test steps" are those
of the optimizer for each network, "tested in" the seconds of all of them. "load" is the machine's
load average before the run and its largest during it, the run's own included. "kernel read-out" is
the method's own kernel regression, with no network trained. The accuracy of `krr_st` is that of a
linear probe, and its "random" as many random images with the same teacher's representations.
Protocol "cpu" is the small one for two CPU cores (networks a quarter as wide, minutes instead of
hours), "official" the paper's own, "official networks" the paper's networks and evaluation within
a time budget and with the settings of its command; "published" is always the paper's figure, under
its own protocol.

"""


def files(results: pathlib.Path = RESULTS) -> list[pathlib.Path]:
    """The result files, by data and name."""
    return sorted(p for p in results.glob("*/*.json") if p.parent.name != TUNING)


def render(results: pathlib.Path = RESULTS) -> int:
    """Writes RESULTS.md beside a folder of results; returns how many there are."""
    found = [read_result(path) for path in files(results)]
    text = HEADER + markdown_table(found)
    write_atomically(results.parent / "RESULTS.md", lambda file: file.write(text.encode()))
    return len(found)


def main() -> None:
    print(f"{render()} results in {HERE / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
