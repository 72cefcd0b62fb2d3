"""The command line: one thin dispatcher; errors are one line and an exit code, never a traceback.

Exit codes: 0 done, 2 bad input, 3 a run that stopped being finite, 75 stopped by SIGTERM or Ctrl-C
wherever it was (run the same command again to continue), 128 + the signal's number when it came
twice.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from dd_jax.cli.messages import plain_warnings, told_here
from dd_jax.cli.stop import Stopped
from dd_jax.errors import DDJaxError, NonFiniteError, RunStopped, unknown
from dd_jax.run.stop import EXIT_NON_FINITE, EXIT_STOPPED
from dd_jax.versions import __version__

_COMMANDS = {
    "distill": ("dd_jax.cli.distill", "run", "distil a data set by a method and test the result"),
    "prepare": ("dd_jax.cli.prepare", "run", "make what a method needs, or a teacher"),
    "artefacts": ("dd_jax.cli.artefacts", "run", "list or delete what has been made so"),
    "evaluate": ("dd_jax.cli.evaluate", "run", "test a saved set on fresh networks"),
    "methods": ("dd_jax.cli.sets", "run_methods", "list the methods"),
    "show": ("dd_jax.cli.sets", "run_show", "describe a saved set"),
    "export": ("dd_jax.cli.sets", "run_export", "write a saved set for other tools"),
}
_USAGE = "usage: python -m dd_jax COMMAND ...   (COMMAND --help for its options)\n\n" + "\n".join(
    f"  {name:10} {text}" for name, (_, _, text) in _COMMANDS.items()
)


def _use_compilation_cache() -> None:
    """Compiled programs are kept between calls, unless DD_JAX_COMPILATION_CACHE=0."""
    switched_off = os.environ.get("DD_JAX_COMPILATION_CACHE") == "0"
    if switched_off or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    from dd_jax.cli.cache import programs_folder

    folder = programs_folder()
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))


class _ToStderr(logging.StreamHandler):
    """Writes to what stderr is at the time, which callers of `main` may have replaced."""

    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stderr


def _show_log() -> None:
    """What the library reports, such as how a kernel is cut into blocks, goes to stderr."""
    logger = logging.getLogger("dd_jax")
    if not logger.handlers:
        handler = _ToStderr()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # other packages put handlers on the root


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    try:
        if words[0] not in _COMMANDS:
            raise unknown("command", words[0], _COMMANDS)
        module, function, _ = _COMMANDS[words[0]]
        if words[0] in ("distill", "evaluate", "prepare"):
            from dd_jax.cli.allocator import keep_memory

            keep_memory()
            _show_log()
            _use_compilation_cache()
        with plain_warnings():
            return getattr(importlib.import_module(module), function)(words[1:])
    except DDJaxError as error:
        print(told_here(error, words), file=sys.stderr)
        return _exit_code(error)
    except Stopped as stop:
        print(f"RunStopped: {stop}", file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _exit_code(error: DDJaxError) -> int:
    if not isinstance(error, (NonFiniteError, RunStopped)):
        return 2
    return EXIT_STOPPED if isinstance(error, RunStopped) else EXIT_NON_FINITE
