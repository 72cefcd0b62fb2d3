"""`python -m dd_jax`."""

import sys

from dd_jax.cli.main import main
from dd_jax.cli.stop import EndSignals, Stopped, leave
from dd_jax.run.stop import EXIT_STOPPED


def script() -> None:
    """The installed command `dd-jax`."""
    try:
        with EndSignals():
            code = main()
    except Stopped:  # after the last word
        code = EXIT_STOPPED
    if code == EXIT_STOPPED:
        leave(code)
    sys.exit(code)


if __name__ == "__main__":
    script()
