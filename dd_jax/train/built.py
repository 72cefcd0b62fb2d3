"""Arguments that are records: a factory in the place of what it returns is refused at once."""

from __future__ import annotations

from typing import Any

from dd_jax.errors import ConfigError


def require_built(name: str, value: Any, kind: type, *, optional: bool = False) -> None:
    """Checks that an argument is a record of its kind and not, for example, the factory of one.

    A factory would else only be noticed where a step is traced, as a function without an attribute.

    Args:
      name: of the argument.
      value: what the user gave.
      kind: such as `Augmentation` or `Pool`.
      optional: whether None will do.

    Raises:
      ConfigError: if it is anything else.

    Example:
      >>> from dd_jax.types import Pool
      >>> require_built("pool", None, Pool)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: pool is None, expected a Pool; pass what its factory returns
    """
    if isinstance(value, kind) or (optional and value is None):
        return
    found = getattr(value, "__qualname__", None)
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    raise ConfigError(
        f"{name} is {repr(value) if found is None else found}, expected {article} {kind.__name__}"
        + (" or None" if optional else ""),
        fix="pass what its factory returns" + ("" if found is None else ", not the factory"))
