"""The house rules: imports run downwards, importing is inert, files stay small, examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "dd_jax"
# From the ground upwards; a module may import from its own room and from those before it.
ORDER = ["errors", "versions", "callable_module", "types", "backend", "data", "nets", "augment",
         "kernels", "solvers", "transforms", "synthetic", "labels", "train", "select", "pools",
         "objectives", "store", "run", "report", "evaluate", "distill", "contrib", "methods", "cli",
         "__main__"]
HEAVY = {"tensorflow", "tensorflow_datasets", "neural_tangents", "torch", "matplotlib", "orbax",
         "sklearn", "scipy", "treescope", "PIL"}
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text()) for path in FILES}


def room(name: str) -> str:
    return name.split(".")[1]


def imports(name: str, *, top_level_only: bool = False) -> Iterator[str]:
    """The modules that a module names in its imports."""
    for node in TREES[name].body if top_level_only else ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                yield name if node.module == "dd_jax" or name in TREES else node.module


def listed(offenders) -> str:
    return "\n" + "\n".join(map(str, offenders))


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The names of a graph that lie on circles, or between two of them."""
    left = set(graph)
    while gone := {name for name in left if not graph[name] & left
                   or not any(name in graph[other] for other in left)}:
        left -= gone
    return sorted(left)


def picture() -> str:
    """Which room imports which, from the ground upwards, without what follows from the rest."""
    direct = {name: set() for name in ORDER}
    for module in TREES:
        direct[room(module)] |= {room(n) for n in imports(module) if n.startswith("dd_jax.")}
    below: dict[str, set[str]] = {}
    lines = []
    for name in ORDER:
        own = direct[name] - {name}
        below[name] = own.union(*(below[other] for other in own))
        seen = own - set().union(*(below[other] for other in own))
        lines.append(f"    {name:16} {' '.join(sorted(seen, key=ORDER.index))}".rstrip())
    return "\n".join(lines)


def test_imports_run_downwards_without_a_circle():
    upwards = [f"{module} imports {name}" for module in TREES for name in imports(module)
               if name.startswith("dd_jax.")
               and ORDER.index(room(name)) > ORDER.index(room(module))]
    assert not upwards, listed(upwards)
    graph = {module: {n for n in imports(module, top_level_only=True) if n != module}
             for module in TREES}
    assert not circle(graph), listed(circle(graph))
    shown = (ROOT.parent / "docs" / "architecture.md").read_text()
    assert picture() in shown, f"docs/architecture.md shows another picture than\n{picture()}"


def test_no_heavy_import_at_module_level():
    heavy = [f"{module} imports {name}" for module in TREES
             for name in imports(module, top_level_only=True) if name.split(".")[0] in HEAVY]
    assert not heavy, listed(heavy)


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


def body_lines(node: ast.FunctionDef) -> int:
    """Lines of a function after its docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_files_and_functions_are_small_and_documented():
    found = []
    for path, (module, tree) in zip(FILES, TREES.items()):
        lines = len(path.read_text().splitlines())
        if lines > 400:
            found.append(f"{module} has {lines} lines")
        if path.name != "__init__.py" and not ast.get_docstring(tree):
            found.append(f"{module} has no docstring")
        for node in tree.body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"
            if public and not ast.get_docstring(node):
                found.append(f"{module}.{node.name} has no docstring")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and body_lines(node) > 60:
                found.append(f"{module}.{node.name} has a body of {body_lines(node)} lines")
    assert not found, listed(found)


@pytest.mark.parametrize("name", [module_name(p) for p in FILES if ">>>" in p.read_text()])
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    importlib.import_module(name)
    module = sys.modules[name]  # rooms that can be called have the names of their functions
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testmod(module, optionflags=flags)
    assert result.failed == 0
