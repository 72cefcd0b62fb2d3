"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dd_jax.errors import printable
from dd_jax.report.result import table


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a plain table; never cut, even where the output is not a terminal."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for values in rows:  # as text: a name in brackets would be read as markup
        shown.add_row(*(Text(printable(value)) for value in values))
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(width=200, markup=False, emoji=False)
    console.print(shown)


def print_results(results: Sequence[Mapping[str, Any]]) -> None:
    """Prints results with the columns that say something."""
    print_table(*table(results))
