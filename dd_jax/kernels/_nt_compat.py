"""Imports neural_tangents 0.6.5 on the JAX of today.

The package's newest release is older than the JAX that dd_jax needs. Only its imports broke, and
what they name serves its *empirical* kernels; the closed-form kernels of `stax` are plain array
code. So, for the time of the import and no longer:

  * names that moved from `jax.core` to `jax.extend.core` are lent back to `jax.core`;
  * names that are gone (`jax.util`, `zeros_like_p`) are lent stand-ins that nothing calls;
  * the `experimental` subpackage, which wants TensorFlow, is an empty module.

neural_tangents' own empirical kernels stay broken: use `dd_jax.contrib.empirical_ntk`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
import warnings

import jax
import numpy as np

_PACKAGE = "neural_tangents"
_MOVED = ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
_MISSING = object()


def _lookup(module, name: str):
    """The attribute, also where reading it warns; `_MISSING` where JAX has removed it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return getattr(module, name, _MISSING)


def _core_aliases() -> dict[str, object]:
    moved = importlib.import_module("jax.extend.core")
    return {
        **{name: getattr(moved, name) for name in _MOVED},
        # This one is built and looked for with isinstance, so it has to be the real class.
        "ShapedArray": type(jax.typeof(np.float32(0))),
        "AbstractValue": object,
        "Value": object,
    }


def _util_stand_in() -> types.ModuleType:
    module = types.ModuleType("jax.util")
    module.safe_map = lambda fn, *args: list(map(fn, *args))
    module.safe_zip = lambda *args: list(zip(*args, strict=True))
    return module


@contextlib.contextmanager
def _lent_modules(modules: dict[str, types.ModuleType]):
    """Puts modules into `sys.modules` where they are not, and takes out the same ones again."""
    lent = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(lent)
    try:
        yield
    finally:
        for name, module in lent.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


@contextlib.contextmanager
def _lent_names(module: types.ModuleType, names: dict[str, object]):
    """Sets attributes that a module lacks, and removes the same ones again."""
    lent = [name for name in names if _lookup(module, name) is _MISSING]
    for name in lent:
        setattr(module, name, names[name])
    try:
        yield
    finally:
        for name in lent:
            delattr(module, name)


def load() -> types.ModuleType:
    """Imports neural_tangents, or returns it where it is imported already.

    Raises:
      ImportError and others: what the import raises; a half-imported package is removed, so that
        the next call starts afresh.
    """
    if _PACKAGE in sys.modules:
        return sys.modules[_PACKAGE]
    core = importlib.import_module("jax.core")
    ad = importlib.import_module("jax.interpreters.ad")
    importlib.import_module("jax.extend.linear_util")
    gone = {"zeros_like_p": "zeros_like", "add_jaxvals_p": "add_any"}
    aliases = _core_aliases()
    stand_ins = {name: aliases["Primitive"](text) for name, text in gone.items()}
    modules = {f"{_PACKAGE}.experimental": types.ModuleType(f"{_PACKAGE}.experimental")}
    if importlib.util.find_spec("jax.util") is None:
        modules["jax.util"] = _util_stand_in()
    try:
        with _lent_modules(modules), _lent_names(core, aliases), _lent_names(ad, stand_ins):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return importlib.import_module(_PACKAGE)
    except BaseException:
        for name in [n for n in sys.modules if n.split(".")[0] == _PACKAGE]:
            del sys.modules[name]
        raise
