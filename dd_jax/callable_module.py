"""Lets `dd_jax.distill(...)` and `dd_jax.evaluate(...)` be calls although they are subpackages."""

from __future__ import annotations

import sys
import types


def make_callable(module_name: str, function_name: str) -> None:
    """Gives a loaded module a `__call__` that forwards to one of its functions.

    Uses the documented assignment to a module's `__class__`.

    Example:
      >>> import dd_jax
      >>> callable(dd_jax.distill)
      True
    """

    class CallableModule(types.ModuleType):
        def __call__(self, *args, **kwargs):
            return getattr(self, function_name)(*args, **kwargs)

    sys.modules[module_name].__class__ = CallableModule
