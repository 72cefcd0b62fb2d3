"""Headers: one text for equal values, settings that JSON can hold, foreign texts within bounds."""

from __future__ import annotations

import types

import numpy as np
import pytest

from dd_jax.errors import CheckpointError, ConfigError, SetFileError
from dd_jax.store.envelope import (
    MAX_DEPTH,
    MAX_VALUES,
    canonical,
    differences,
    header_hash,
    plain,
    read_json,
)


def test_equal_values_have_one_text():
    assert canonical({"b": "é", "a": [1.5, True]}) == '{"a":[1.5,true],"b":"\\u00e9"}'
    with pytest.raises(ValueError):
        canonical(float("nan"))


def test_the_hash_leaves_itself_out():
    header = {"a": [1], "b": 2}
    for field in ("sha256", "card_sha256"):
        sealed = {**header, field: header_hash(header, field=field)}
        assert header_hash(sealed, field=field) == sealed[field]
        assert header_hash({**sealed, "b": 3}, field=field) != sealed[field]
    assert header_hash({**header, "sha256": "x"}, field="card_sha256") != header_hash(header)


def test_plain_copies_what_json_can_hold():
    given = types.MappingProxyType({"a": (1, np.float32(0.5)), "b": {"c": [None, True, "x"]}})
    assert plain(given, "recipe") == {"a": [1, 0.5], "b": {"c": [None, True, "x"]}}
    assert type(plain(np.bool_(True), "x")) is bool and type(plain(np.int64(3), "x")) is int


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("value, match", [
    ({"a": {"b": object()}}, "s.a.b is a object"),
    ({"a": [1, float("inf")]}, r"s.a\[1\] is inf"),
    ({1: 2}, "s has the key 1 of type int"),
    ({"a": b"1"}, "s.a is a bytes"),
    ({"a": np.zeros(2)}, "s.a is a ndarray"),
    ({"a": 10**50}, "s.a has 40 digits or more"),
    (nested(MAX_DEPTH), "nested more than"),
], ids=range(7))
@pytest.mark.parametrize("error", [SetFileError, CheckpointError, ConfigError])
def test_plain_names_what_it_cannot_hold(value, match, error):
    with pytest.raises(error, match=match) as caught:
        plain(value, "s", error=error)
    assert caught.value.fix and len(caught.value.message) < 200


def test_differences_are_dotted():
    assert differences({"a": {"b": [1]}}, {"a": {"b": [2], "c": None}}) == [
        ("a.b", "[1]", "[2]"), ("a.c", "(absent)", "None")]
    nan = {"x": float("nan"), "y": [float("nan")]}
    assert differences(nan, {"x": float("nan"), "y": [float("nan")]}) == []
    assert differences({"x": True}, {"x": 1}) == [("x", "True", "1")]
    assert differences({"x": 1}, {"x": 1.0}) == []
    assert len(differences({"x": "a" * 999}, {})[0][1]) == 80


@pytest.mark.parametrize("text, match", [
    (b'{"a":', "not valid JSON"),
    (b"{\xff}", "not valid JSON"),
    (b'{"a":1,"a":1}', "a name occurs twice"),
    (b'{"b":{"a":1,"a":2}}', "a name occurs twice"),
    (b'{"a":NaN}', "NaN is not JSON"),
    (b'{"a":[-Infinity]}', "Infinity is not JSON"),
    (b'{"a":1e999}', "1e999 is too large"),
    (b'{"a":' + b"9" * 41 + b"}", "41 digits"),
    (b'{"a":' + b"9" * 6000 + b"}", "6000 digits"),
    (b'{"a":' * 100 + b"1" + b"}" * 100, "nested more than 64 deep"),
    (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "nested more than 64 deep"),
    (b'{"a":' * 50_000, "not valid JSON"),
    (b"[" * 10**6, "not valid JSON"),
    (b"[1]", "is a list, expected an object"),
    (b'"x"', "is a str"),
    ('{"a":1}'.encode("utf-16"), "not valid JSON"),
    (b" " * 1001, "1001 bytes, the cap is 1000"),
], ids=range(17))
@pytest.mark.parametrize("error", [SetFileError, CheckpointError])
def test_foreign_json_is_refused(text, match, error):
    cap = 1000 if text.isspace() else 2**20
    with pytest.raises(error, match="the card .*" + match) as caught:
        read_json(text, "the card", fix="go away", error=error, max_bytes=cap)
    assert caught.value.fix == "go away" and len(caught.value.message) < 300


def test_json_that_is_fine():
    text = '{"a":[1,-2.5e3,"é",null,true],"b":' + "9" * 40 + "}"
    expected = {"a": [1, -2500.0, "é", None, True], "b": 10**40 - 1}
    assert read_json(text, "x", fix="") == read_json(text.encode(), "x", fix="") == expected
    deep = canonical(nested(MAX_DEPTH - 2))
    assert canonical(read_json(deep, "x", fix="")) == deep


def test_values_are_counted_before_they_are_made():
    """A megabyte and a half of empty objects would be fifty of memory, and sixteen five hundred."""
    text = b'{"a":[' + b"{}," * (MAX_VALUES // 2) + b"0]}"
    with pytest.raises(SetFileError, match=f"more than {MAX_VALUES} values"):
        read_json(text, "the card", fix="")
    assert len(read_json(text.replace(b"{},", b"1,"), "x", fix="")["a"]) == MAX_VALUES // 2 + 1
