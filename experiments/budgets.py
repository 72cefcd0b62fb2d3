"""What a budget is: steps of distilling, steps of the test, networks; and a share of one.

Campaigns compare budgets before they write over a figure; the tuner and trials of long runs take a
share of one.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from dd_jax.errors import ConfigError
from dd_jax.evaluate import Protocol

# A method's length is the first of these fields that it has; the second list is no longer than it.
LENGTHS = ("steps", "iterations", "networks")
WARM_UPS = ("warm_networks",)


class Budget(NamedTuple):
    """What a figure has cost, or would cost; None for what is not known of an older one.

    Attributes:
      steps: of distilling.
      test_steps: of each network of the test.
      networks: that were tested.
    """

    steps: int | None
    test_steps: int | None
    networks: int | None


def check_share(share: float) -> None:
    """Raises ConfigError unless 0 < share <= 1."""
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"share is {share!r}, expected a number above 0 and at most 1",
                          fix="pass share=0.1")


def part(count: int, share: float) -> int:
    """The share of a whole number, at least 1.

    Example:
      >>> part(250, 0.1), part(3, 0.1)
      (25, 1)
    """
    return max(1, round(count * share))


def shortened(settings: Any, share: float) -> Any:
    """Settings of a method with a share of its steps; rates and the rest stay.

    A method without steps, such as one that solves for its labels, stays as it is.

    Raises:
      ConfigError: no share.
    """
    check_share(share)
    names = {field.name for field in dataclasses.fields(settings)}
    length = next((name for name in LENGTHS if name in names), None)
    found = ([] if length is None else [length]) + [name for name in WARM_UPS if name in names]
    changed = {name: getattr(settings, name) for name in found}
    return dataclasses.replace(
        settings, **{name: part(count, share) for name, count in changed.items() if count})


def shortened_test(protocol: Protocol, share: float, *, full: bool = False) -> Protocol:
    """The protocol with a share of its epochs, and of its warm-up.

    Args:
      protocol: of the test.
      share: of its length.
      full: whether the baseline of all real images is shortened as well.

    Raises:
      ConfigError: no share.
    """
    check_share(share)
    if share == 1.0:
        return protocol
    short = dict(epochs=part(protocol.plan.epochs, share),
                 warmup=round(protocol.optimizer.warmup * share))
    if full:
        short["full_epochs"] = part(protocol.full.epochs, share)
    return protocol.varied(**short)


def exceeds(found: Budget, wanted: Budget) -> list[str]:
    """In what one budget is above another, in words; empty where it is in nothing.

    Example:
      >>> exceeds(Budget(2000, 1000, 5), Budget(500, 1000, 5))
      ['steps 2000 > 500']
    """
    named = zip(Budget._fields, found, wanted)
    return [f"{name.replace('_', ' ')} {a} > {b}" for name, a, b in named
            if a is not None and b is not None and a > b]
