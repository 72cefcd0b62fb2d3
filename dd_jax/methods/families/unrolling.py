"""What the methods that differentiate a network's training have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from dd_jax.errors import ConfigError
from dd_jax.methods.frame import ConvNets, Normalisation, Settings, Whole, one_of
from dd_jax.train.unroll import adjoint_by_name
from dd_jax.types import Objective

ADJOINTS = ("full", "checkpointed", "recursive", "two_pass")  # each needs less than those before
AdjointName = Annotated[str, one_of(ADJOINTS, "adjoint")]


class Differentiated(Settings):
    """Settings of how an inner loop is differentiated.

    Attributes:
      adjoint: "full", "checkpointed" and "recursive" are exact, "two_pass" is TESLA's rule, for
        plain gradient descent only.
    """

    adjoint: AdjointName = "checkpointed"

    def adjoint_of(self, name: str, *, plain: bool) -> Callable:
        """The adjoint of that name.

        Args:
          name: one of `ADJOINTS`.
          plain: whether the inner loop is gradient descent without momentum.

        Raises:
          ConfigError: "two_pass" where it is not.
        """
        if name == "two_pass" and not plain:
            raise ConfigError("adjoint 'two_pass' knows no momentum of the student",
                              fix="pass adjoint='checkpointed' or adjoint='recursive'")
        return adjoint_by_name(name)

    def with_variants(
        self, build: Callable[[str], Objective], names: Sequence[str] = ("recursive",)
    ) -> Objective:
        """`build(adjoint)`, which names those variants of it that need less memory.

        Args:
          build: name of an adjoint -> the objective that uses it.
          names: of the adjoints that it can be built with.
        """
        later = ADJOINTS[ADJOINTS.index(self.adjoint) + 1:]
        return build(self.adjoint)._replace(variants={
            f"adjoint={name!r}": partial(build, name) for name in names if name in later})


class Unrolling(Differentiated, ConvNets):
    """Settings of every method that unrolls a training; the networks also test the set.

    Attributes:
      steps: outer steps.
      batch_size: real images per step.
      normaliser: a name in `data.normalisers`.
    """

    steps: Whole = 20_000
    batch_size: Whole = 1024
    normaliser: Normalisation = "standardise"
