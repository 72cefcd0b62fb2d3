"""RAD: images that a student is unsure of, drawn so that a teacher's wrong answers cost least.

Baykal et al., Robust Active Distillation, ICLR 2023: the query rule alone. It is a draw out of the
optimal distribution of a game against the choice of the wrong answers.

Differs from the paper: one round of choice by networks trained on all labels (there a student of
the labels that were asked for so far, in rounds); how many answers are wrong is a setting, since
how the paper knows it could not be found; gains are 1 - margin, means over several networks; where
more images are asked for than the distribution has, the others follow by their gains.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import Recorded
from dd_jax.methods.frame import Share, Site, Whole
from dd_jax.select import Selector
from dd_jax.select.robust_queries import robust_active


class RobustActive(Recorded):
    """Settings of the query rule of robust active distillation.

    Attributes:
      wrong: answers of the teacher that may be wrong, as a share of the images that are chosen
        from; 0 takes the smallest margins.
      until: margins are those after so many epochs; None: after all.
    """

    wrong: Share = 0.1
    until: Whole | None = None

    def selector(self) -> Selector:
        return robust_active(self.wrong, until=self.until)

    def shaping(self) -> dict:
        return dict(wrong=self.wrong, until=self.until)

    def check(self, at: Site) -> None:
        super().check(at)
        self.check_until(self.until)
