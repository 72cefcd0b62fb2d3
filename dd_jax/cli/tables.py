"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from dd_jax.report.result import COLUMNS, row


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a plain table; never cut, even where the output is not a terminal."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for values in rows:
        table.add_row(*values)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def print_results(results: Sequence[Mapping[str, Any]]) -> None:
    """Prints results with the columns that say something."""
    rows = [row(result) for result in results]
    shown = [i for i in range(len(COLUMNS)) if any(r[i] != "-" for r in rows)]
    print_table([COLUMNS[i] for i in shown], [[r[i] for i in shown] for r in rows])
