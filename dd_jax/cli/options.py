"""From command-line words to typed records, by tyro; shared by the subcommands."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import io
import pathlib
import re
import sys
import typing
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import tyro

from dd_jax.cli.refusals import refusal
from dd_jax.errors import ConfigError
from dd_jax.methods import METHODS, Method, get, preset

Options = TypeVar("Options")
Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Options of `prepare`, which every run has as well.

    Attributes:
      data: "embedded", "fashion_mnist", "tfds:NAME", or a folder or file of your own.
      size: of images from class folders of your own, which are cropped and resized to it: a side in
        pixels, or HEIGHTxWIDTH.
      channels: of such images, 1 or 3; by default 1 where all of them are grey.
      test_share: of data of your own without a test part, the share of each class that is kept for
        testing; by default 0.2.
      class_names: of an .npz file or a folder of idx files, comma-separated in label order.
      protocol: "cpu" for minutes on two cores, "official" for the paper's settings.
      workdir: folder of the run: for checkpoints, metrics, the set and the result.
      artefacts: folder of what is made from the real data once and shared by runs; by default
        DD_JAX_ARTEFACTS, or "artefacts" beside the run's folder.
      memory: that a selection of real images may hold on the device at once, such as 4GB; by
        default all that there is.
    """

    data: str = "embedded"
    size: str | None = None
    channels: int | None = None
    test_share: float | None = None
    class_names: str | None = None
    protocol: str = "cpu"
    workdir: pathlib.Path | None = None
    artefacts: pathlib.Path | None = None
    memory: str | None = None


@dataclasses.dataclass(frozen=True)
class Run(Prepare):
    """Options of every run, those in `Prepare` and:

    Attributes:
      seed: of the run; the same seed gives the same set.
      flipped: let every loss see the set together with its mirror images (FYI); not for digits.
      representative: take real batches that represent their classes (DREAM), chosen every ten steps
        among so many random images of each class; 0 for all of them.
      stages: distil in so many stages, each of which adds --ipc images per class to those of the
        stages before; PDD has five by default.
      full: also train on the full data, for the ratio (made once, an artefact).
      seeds: networks to test; the protocol's number by default.
      evaluate: train and test networks on the set at the end.
      read_out: also predict by the method's own kernel regression, if it has one; exact kernels of
        convolutional networks take minutes for each hundred images.
      log_every: steps between two lines of metrics.jsonl.
      save_seconds: seconds between two checkpoints.
      save_every: steps between two checkpoints, as well.
      json: also write the result to this file.
    """

    seed: int = 0
    flipped: bool = False
    representative: int | None = None
    stages: int = 1
    full: bool = False
    seeds: int | None = None
    evaluate: bool = True
    read_out: bool = True
    log_every: int = 10
    save_seconds: float = 60.0
    save_every: int | None = None
    json: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Command(Generic[Options, Config]):
    """A command's options and the method's settings, side by side on one command line."""

    run: Options
    settings: Config = dataclasses.field(metadata={
        "help": "Settings of the method; defaults are those of the protocol and the budget."})


def entries(docstring: str) -> dict[str, str]:
    r"""name -> text, of the part "Attributes:"; where several share an entry, each has all of it.

    Example:
      >>> entries("Of x.\n\nAttributes:\n  a: one\n    more.\n  b, c: two.")
      {'a': 'one more.', 'b': 'b, c: two.', 'c': 'b, c: two.'}
    """
    text = inspect.cleandoc(docstring).partition("Attributes:")[2].split("\n\n")[0]
    found = {}
    for names, words in re.findall(r"^  (\w[\w, ]*?):(.*(?:\n    .*)*)", text, re.MULTILINE):
        words = " ".join(words.split())
        for name in names.split(","):
            found[name.strip()] = f"{names}: {words}" if "," in names else words
    return found


def with_help(kind: type) -> type:
    """The class of settings, whose every field says what the docstrings say of it."""
    words: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        words |= entries(base.__dict__.get("__doc__") or "")
    fields = kind.__dataclass_fields__
    for name in set(words) & set(fields):
        field = copy.copy(fields[name])  # those of a base are its own
        field.metadata = {**field.metadata, "help": words[name]}
        fields[name] = field
    return kind


def parse(
    kind: Any, words: Sequence[str], *, program: str, default: Any = None,
    description: str | None = None,
) -> Any:
    """Parses words into the record `kind`.

    Raises:
      ConfigError: a word that cannot be, with the nearest that can.
    """
    options, told = {} if default is None else {"default": default}, io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            found = tyro.cli(kind, args=list(words), prog=program, description=description,
                             config=(tyro.conf.OmitArgPrefixes,), **options)
    except SystemExit as end:
        if not end.code:  # help was asked for, and is printed
            raise
        raise refusal(told.getvalue(), words, options=_names(kind), program=program) from None
    sys.stderr.write(told.getvalue())
    return found


def _names(kind: Any) -> list[str]:
    """All options of a record, or of those that a command has side by side."""
    found = ["--help"]
    for record in typing.get_args(kind) or (kind,):
        for field in dataclasses.fields(record):
            if "Positional" not in str(field.type):
                name = field.name.replace("_", "-")
                found += [f"--{name}"] + [f"--no-{name}"] * (field.type in ("bool", bool))
    return found


def method_command(
    command: str, words: Sequence[str], options: type[Prepare] = Run, *,
    others: Sequence[str] = (),
) -> tuple[Method, Command] | None:
    """A method and its settings from the words after `command`; None where only help was asked for.

    Args:
      command: "distill" or another that begins with a method's name, or a file that declares one.
      words: after it.
      options: of the command, beside the method's settings.
      others: words that may stand in the place of a method, for the help.

    Raises:
      ConfigError: no method or an unknown one.
    """
    if words and words[0] in ("-h", "--help"):
        print(f"usage: python -m dd_jax {command} METHOD ...   (METHOD --help for its settings)\n\n"
              "methods: " + ", ".join(sorted(METHODS)) + ", or a .py file that declares one"
              + "".join(f"; or {other}" for other in others))
        return None
    if not words or words[0].startswith("-"):
        raise ConfigError(f"{command} got no method",
                          fix="name one of: " + ", ".join(sorted(METHODS)))
    method = get(words[0])
    program = f"python -m dd_jax {command} {words[0]}"  # a file of one's own by its path
    kind = Command[with_help(options), with_help(method.settings)]
    # Twice: protocol, budget and data that the first reading finds set the second's defaults.
    # Help waits for the second, so that it shows the defaults that would be used.
    first = parse(kind, [w for w in words[1:] if w not in ("-h", "--help")], program=program)
    base = preset(method, first.run.protocol, first.settings.ipc,
                  data=first.run.data.removeprefix("tfds:"))
    usual = Run(stages=method.settings.stages) if options is Run else options()
    return method, parse(kind, words[1:], program=program, default=Command(usual, base),
                         description=f"{method.name}: {method.title}")
