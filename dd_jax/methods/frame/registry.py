"""Which methods there are: one file each in `dd_jax.methods`, and plug-ins of the user's."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import pkgutil
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from dd_jax.data.places import stands_at
from dd_jax.errors import ConfigError, require_kind, unknown
from dd_jax.methods.frame.settings import Settings, method_name

_FOLDER = pathlib.Path(__file__).parents[1]
_ENTRY_POINTS = "dd_jax.methods"


class Published(NamedTuple):
    """A published accuracy in percent, with its deviation (None where not given) and source."""

    mean: float
    std: float | None
    source: str


class Method(NamedTuple):
    """One paper: its declaration, and what papers.toml and references.bib say of it.

    Attributes:
      name: acronym in lower case with underscores.
      settings: the class of its settings; its first field is `ipc`.
      title: of the paper.
      matches: what it matches, in a few words.
      citation: BibTeX.
      published: (data name, ipc) -> Published, accuracies of fresh networks.
      published_read_out: the same for the method's own kernel regression, where it has one.
    """

    name: str
    settings: type[Settings]
    title: str
    matches: str
    citation: str
    published: Mapping[tuple[str, float], Published]
    published_read_out: Mapping[tuple[str, float], Published]


class Methods(Mapping):
    """name -> `Method`, loaded when it is asked for.

    Names are those of the files in `dd_jax.methods` and of the entry points of other packages in
    the group "dd_jax.methods".
    """

    def __getitem__(self, name: str) -> Method:
        if name not in self._names:
            raise KeyError(name)
        return _method(_declared(self._names[name], name), name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        own = {module.name.rstrip("_"): f"dd_jax.methods.{module.name}"
               for module in pkgutil.iter_modules([str(_FOLDER)]) if not module.ispkg}
        others = {point.name: point.value
                  for point in importlib.metadata.entry_points(group=_ENTRY_POINTS)}
        return {**others, **own}


METHODS = Methods()


def get(name: str) -> Method:
    """The record of a method.

    Args:
      name: of a method, or a plug-in: a file that ends in ".py" and declares one.

    Raises:
      ConfigError: unknown name, with the nearest ones; a file that declares no method.

    Example:
      >>> get("dm").title
      'Dataset Condensation with Distribution Matching'
    """
    require_kind("method", name, (str, os.PathLike), expected="its name",
                 fix="pass for example 'dm'")
    if str(name).endswith(".py"):
        return _method(_declared_in(_module_at(pathlib.Path(name)), pathlib.Path(name).stem))
    if str(name) not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[str(name)]


@functools.cache
def papers() -> Mapping[str, Mapping[str, Any]]:
    """What papers.toml holds: name -> reference, what it matches, published figures."""
    return tomllib.loads((_FOLDER / "papers.toml").read_text())


@functools.cache
def references() -> Mapping[str, str]:
    """What references.bib holds: key -> its BibTeX entry."""
    text = (_FOLDER / "references.bib").read_text()
    return {match[1]: match[0] for match in re.finditer(r"@\w+\{(\w+),.*?\n\}", text, re.DOTALL)}


def title_of(reference: str) -> str:
    """The title in a BibTeX entry."""
    found = re.search(r"\btitle = \{(.*?)\},?\n", reference)
    return found[1] if found else ""


def figures(table: Mapping[str, Any]) -> dict[tuple[str, float], Published]:
    """Published figures of a table: source, and data name -> images per class -> figures."""
    sources, found = table.get("sources", {}), {}
    for data, cells in table.items():
        if data not in ("source", "sources"):
            source = sources.get(data, table.get("source", ""))
            for ipc, cell in cells.items():
                mean, std = cell if isinstance(cell, list) else (cell, None)
                found[data, int(ipc)] = Published(mean, std, source)
    return found


def _method(kind: type[Settings], name: str | None = None) -> Method:
    name = name or method_name(kind)
    paper = papers().get(name, {}) if kind.__module__.startswith("dd_jax.methods.") else {}
    citation = references().get(paper.get("reference", ""), getattr(kind, "citation", ""))
    described = (kind.__doc__ or name).splitlines()[0]
    title = title_of(citation) or getattr(kind, "title", described)
    return Method(name, kind, title + paper.get("variant", ""), paper.get("matches", ""), citation,
                  figures(paper.get("published", {})), figures(paper.get("read_out", {})))


def _declared(place: str, name: str) -> type[Settings]:
    """The class of settings at "module" or "module:Class"."""
    module, _, attribute = place.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else _declared_in(found, name)


def _declared_in(module: ModuleType, name: str) -> type[Settings]:
    """The one class of settings that a module declares: its last."""
    own = [value for value in vars(module).values()
           if isinstance(value, type) and issubclass(value, Settings)
           and value.__module__ == module.__name__ and value.presets]
    if not own:
        raise ConfigError(f"{getattr(module, '__file__', name)} declares no method",
                          fix="write a subclass of dd_jax.methods.Settings with presets")
    return own[-1]


def _module_at(path: pathlib.Path) -> ModuleType:
    if stands_at(path) != "file":
        raise ConfigError(f"there is no file {path}", fix="name a file that declares a method")
    # Where type hints that are strings are looked up; never under the name of a real module.
    spec = importlib.util.spec_from_file_location(f"dd_jax_plug_ins.{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is somebody else's program: anything may be wrong with it
        raise ConfigError(f"{path} cannot be loaded ({type(error).__name__}: {error})",
                          fix=f"mend it; python {path} shows where it fails") from error
    return module
