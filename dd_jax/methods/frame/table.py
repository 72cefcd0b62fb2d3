"""The README's table of methods."""

from __future__ import annotations

import itertools
import re

from dd_jax.methods.frame.registry import papers, references, title_of


def readme_table() -> str:
    """The table of methods as Markdown: what papers.toml holds, in its order.

    Variants of one paper that match the same share a row.

    Example:
      >>> print(readme_table().splitlines()[2])
      | `frepo` | Dataset Distillation using Neural Feature Regression, 2022 | kernel ridge ...
    """
    def row(item):
        return item[1]["reference"], item[1]["matches"]

    rows = ["| name | paper | what it matches |", "| --- | --- | --- |"]
    for (key, matches), group in itertools.groupby(papers().items(), row):
        names = ", ".join(f"`{name}`" for name, _ in group)
        year = re.search(r"\byear = \{(\d+)\}", references()[key])[1]
        rows.append(f"| {names} | {title_of(references()[key])}, {year} | {matches} |")
    return "\n".join(rows) + "\n"
