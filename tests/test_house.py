"""The house rules: imports run downwards, importing is inert, files stay small, examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "dd_jax"
# From the ground upwards; a module may import from its own room and from those before it.
ORDER = ["errors", "versions", "callable_module", "types", "backend", "data", "nets", "augment",
         "kernels", "solvers", "transforms", "synthetic", "train", "pools", "objectives", "store",
         "run", "report", "evaluate", "distill", "contrib", "methods", "cli", "__main__"]
HEAVY = {"tensorflow", "tensorflow_datasets", "neural_tangents", "torch", "matplotlib", "orbax",
         "sklearn", "scipy", "treescope", "PIL"}
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def room(name: str) -> str:
    return name.split(".")[1]


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: pathlib.Path, *, top_level_only: bool = False):
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "dd_jax":
                yield from (f"dd_jax.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_run_downwards(path):
    own = ORDER.index(room(module_name(path)))
    for name in imports(path):
        if name.startswith("dd_jax."):
            assert ORDER.index(room(name)) <= own, f"{module_name(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_heavy_import_at_module_level(path):
    for name in imports(path, top_level_only=True):
        assert name.split(".")[0] not in HEAVY, name


def test_importing_the_package_is_inert():
    code = (
        "import sys, dd_jax\n"
        "assert 'jax' not in sys.modules, 'jax was imported'\n"
        "for name in dd_jax._MODULES: getattr(dd_jax, name)\n"
        "assert not {'tensorflow', 'matplotlib', 'orbax', 'torch'} & set(sys.modules)\n"
    )
    # With a platform that does not exist, whatever touches a device fails.
    env = {**os.environ, "JAX_PLATFORMS": "no_such_platform"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=env)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_are_small_and_documented(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 400
    assert path.name == "__init__.py" or ast.get_docstring(tree), "no module docstring"
    for node in tree.body:
        public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"
        if public:
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("path", [p for p in FILES if ">>>" in p.read_text()], ids=module_name)
def test_examples_in_docstrings_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(module_name(path))
    module = sys.modules[module_name(path)]
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testmod(module, optionflags=flags)
    assert result.failed == 0
