"""Errors quote names and files of anybody: they are short, and no terminal obeys them."""

from __future__ import annotations

import pytest

from dd_jax.errors import MOST_SHOWN, ConfigError, nearest, printable, unknown

ODD = "\x1b[31mred\x07\nOK: all is well\r\t\u202e\u200b\udcff\x00"


def test_foreign_text_is_one_printable_line():
    shown = printable(f"a{ODD}é± z")
    assert shown.isprintable() and shown.startswith("a\\x1b[31mred\\x07\\nOK")
    assert shown.endswith("\\udcff\\x00é± z") and printable(shown) == shown
    assert printable(3.5) == "3.5" and printable("ab" * 50, most=10) == "abababa..."
    assert len(printable("\x00" * 10**6)) == MOST_SHOWN


@pytest.mark.parametrize("text", [ODD, "x" * 10**6, "\x1b" * 10**5])
def test_errors_are_printable_and_short(text):
    error = ConfigError(f"{text} is wrong", fix=f"leave {text} out")
    for part in (error.message, error.fix):
        assert part.isprintable() and len(part) <= MOST_SHOWN
    assert str(error) == f"{error.message}; {error.fix}"
    again = ConfigError(f"file: {error.message}", fix=error.fix)
    assert again.message.startswith("file: " + error.message[:100]) and again.fix == error.fix


@pytest.mark.parametrize("name", ["dmm" * 10**6, 5, None, [], {}], ids=lambda x: str(x)[:5])
def test_a_name_of_any_kind_and_length_is_unknown(name):
    assert "valid are: dm, frepo" in nearest(name, ["frepo", "dm"]) or "did you" in nearest(
        name, ["frepo", "dm"])
    error = unknown("method", name, ["frepo", "dm"])
    assert isinstance(error, ConfigError) and len(str(error)) < 300
