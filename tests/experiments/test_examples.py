"""The examples in the docstrings of experiments run."""

from __future__ import annotations

import doctest
import importlib
import pathlib

import pytest

import experiments

ROOT = pathlib.Path(experiments.__file__).parent
MODULES = sorted(path.stem for path in ROOT.glob("*.py") if ">>>" in path.read_text())


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(f"experiments.{name}"),
                            optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert found.attempted and not found.failed
