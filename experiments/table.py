"""Renders experiments/RESULTS.md from the files under experiments/results and nothing else.

    python -m experiments.table
"""

from __future__ import annotations

import pathlib

from dd_jax.report.result import markdown_table, read_result

HERE = pathlib.Path(__file__).parent
HEADER = """# Results

Made by `python -m experiments.table` from the files under `experiments/results`; do not edit.

Accuracies are percent, mean and deviation over fresh networks. "random" is random real images of
the same budget under the same protocol; "full data" is one network trained on the whole training
set for `full_epochs` of the protocol. "kernel read-out" is the method's own kernel regression, with
no network trained. The accuracy of `krr_st` is that of a linear probe, and its "random" as many
random images with the same teacher's representations.
Protocol "cpu" is the small one for two CPU cores (networks a quarter as wide, minutes instead of
hours), "official" the paper's own, "official networks" the paper's networks and evaluation within
a time budget and with the settings of its command; "published" is always the paper's figure, under
its own protocol.

"""


def main() -> None:
    results = [read_result(path) for path in sorted((HERE / "results").glob("*/*.json"))]
    (HERE / "RESULTS.md").write_text(HEADER + markdown_table(results))
    print(f"{len(results)} results in {HERE / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
