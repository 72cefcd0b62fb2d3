"""`python -m dd_jax`."""

import sys

from dd_jax.cli.main import main


def script() -> None:
    """The installed command `dd-jax`."""
    sys.exit(main())


if __name__ == "__main__":
    script()
