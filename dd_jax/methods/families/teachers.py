"""Networks that a method trains on the real images before it distils: narrow or official."""

from __future__ import annotations

from typing import Annotated

from dd_jax import nets
from dd_jax.methods.frame import Seed, Settings, Site, Whole, one_of
from dd_jax.types import Network

TEACHERS = ("resnet18", "convnet")


class Taught(Settings):
    """Settings of a teacher with batch normalisation.

    Attributes:
      teacher, teacher_width: "resnet18" or "convnet", and channels in its first stage.
      teacher_batch_size, teacher_seed: of its training.
    """

    teacher: Annotated[str, one_of(TEACHERS)] = "resnet18"
    teacher_width: Whole = 64
    teacher_batch_size: Whole = 256
    teacher_seed: Seed = 0

    def teacher_network(self, at: Site) -> Network:
        """The teacher's architecture."""
        if self.teacher == "resnet18":
            return nets.resnet18(at.spec, width=self.teacher_width)
        return nets.convnet(at.spec, depth=at.depth, width=self.teacher_width, norm="batch")
