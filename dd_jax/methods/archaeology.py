"""Metadata archaeology: images that learn as probes of a known kind do.

Siddiqui et al., Metadata Archaeology, ICLR 2023. Two trainings: one whose dynamics tell typical
from atypical images, and one with probes planted in the real set, whose losses are the
trajectories. The set's notes say how many held-out probes of each suite the neighbours tell as what
they are.

Differs from the official code: typical and atypical images are those whose labels the first
training got right most and least often (there by consistency scores from elsewhere); no suite of
sketches; probes take at most half of the images, so that small sets have fewer of them; networks
and their training are those of all selections here. The paper tells kinds apart and chooses no
coreset: the order by P(suite), its ties by the distance to the suite's mean trajectory, is of this
library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from dd_jax.distill.selection_needs import probed
from dd_jax.errors import ConfigError
from dd_jax.methods.families.selection import Recorded
from dd_jax.methods.frame import Rate, Site, Whole, one_of
from dd_jax.select import Selector
from dd_jax.select.archaeology import SIDES, archaeology, probe_accuracy
from dd_jax.select.probes import SUITES, suite_size
from dd_jax.store.artefacts import Artefact


class Archaeology(Recorded):
    """Settings of metadata archaeology.

    Attributes:
      suite: "typical", "atypical", "random_outputs", "corrupted" or "random_inputs".
      order: "top" takes the images most like that suite, "bottom" avoids them.
      probes: of each half of a suite, one that is gone by and one that checks.
      random_inputs: whether that suite is planted, too.
      noise: added to corrupted pixels in [0, 1], its standard deviation.
      neighbours: probes whose kinds are an image's.
    """

    suite: Annotated[str, one_of(SUITES)] = "typical"
    order: Annotated[str, one_of(SIDES)] = "top"
    probes: Whole = 250
    random_inputs: bool = False
    noise: Rate = 0.1
    neighbours: Whole = 20

    def selector(self) -> Selector:
        return archaeology(self.suite, order=self.order, neighbours=self.neighbours)

    def shaping(self) -> dict:
        return dict(suite=self.suite, order=self.order, neighbours=self.neighbours)

    def suites(self) -> int:
        """How many of `SUITES` are planted."""
        return len(SUITES) if self.random_inputs else len(SUITES) - 1

    def check(self, at: Site) -> None:
        super().check(at)
        suite_size(at.data, self.probes, self.suites())
        if SUITES.index(self.suite) >= self.suites():
            raise ConfigError(f"suite is {self.suite!r}, which is not planted",
                              fix=f"pass {self.suite}=True")

    def trained(self, at: Site) -> Artefact:
        """The training with probes."""
        return probed(
            self.recording(at)._replace(block=self.fitted(at).block), at.data, suites=self.suites(),
            size=suite_size(at.data, self.probes, self.suites()), noise=self.noise,
            epochs=self.network_epochs, first=self.recorded(at), settings=self.training(),
            normaliser=at.whitening, seed=self.network_seed)

    def looks(self, at: Site) -> Mapping[str, Artefact]:
        return {"probed": self.trained(at)}

    def needs(self, at: Site) -> Mapping[str, Artefact]:
        made = super().needs(at)
        return {**made, "probed": made["chosen"].needs["probed"]}

    def build(self, at: Site) -> dict:
        made = super().build(at)
        told = probe_accuracy(at.have["probed"], self.neighbours)
        return {**made, "notes": {**made["notes"], "probe_accuracy": told}}
