"""TESLA: Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory (Cui et al., ICML
2023).

MTT with a derivative of the student's training that needs the memory of one step, and on request
with labels that an expert gives to the images.

The rule regards the weights before each step as constants. It is exact for one step only: the
products of (1 - rate * Hessian) are left out, see `train.two_pass`. `adjoint="checkpointed"` is the
exact derivative at about the same memory; the metric "cosine" of `compared=True` says how far the
two are apart.

Differs from the official code: as MTT does, see `methods.mtt`; and
  - the images' derivative is that of the paper (the released code loses a factor of two, so its
    rate of 1,000 for images is 500 here);
  - with soft labels the finished set has those of one expert, drawn as in a step (there those of
    the last step);
  - a set is tested by five networks (there by three);
  - what is not published for TESLA is as for MTT: it is for CIFAR-10 at 1, CIFAR-100 at 50 and
    ImageNet at 1 image per class.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.data.fetch import fetch
from dd_jax.methods.families import by_data
from dd_jax.methods.families.trajectory import Trajectories, narrow
from dd_jax.methods.families.unrolling import AdjointName
from dd_jax.methods.frame import Site, Whole
from dd_jax.methods.mtt import MTT
from dd_jax.objectives.compared import compared
from dd_jax.objectives.trajectory_matching import (
    TrajectoryState,
    target_labels,
    trajectory_matching,
)
from dd_jax.synthetic import Labels
from dd_jax.train.experts import unflatten


class TESLA(Trajectories):
    """Settings of TESLA, those in `Trajectories` and:

    Attributes:
      soft_labels: labels are the probabilities of the expert at the segment's end.
      compared: measure the cosine to the exact derivative in every step, at twice its cost.
    """

    steps: Whole = 10_000
    adjoint: AdjointName = "two_pass"
    soft_labels: bool = False
    compared: bool = False

    for_data = by_data.TESLA
    presets = {
        # Beyond 1 they are MTT's.
        "official": {
            **MTT.presets["official"],
            1: dict(inner_steps=50, max_start=5, rate_rate=1e-7, image_rate=500.0)},
        "cpu": narrow(one=dict(max_start=3)),
    }

    def adjoints(self) -> tuple[str, ...]:
        return ("two_pass",)

    def matching(self, at: Site, learner):
        def matched(learner):
            return trajectory_matching(learner, self.segments(at), starts=self.starts(),
                                       relabel=self.soft_labels)

        if not self.compared:
            return matched(learner)
        return compared(matched(learner), matched(self.student(at, "checkpointed")))

    def build(self, at: Site) -> dict:
        fields = super().build(at)
        if not self.soft_labels:
            return fields
        network, objective = at.convnet(), fields["objective"]

        def finalise(synthetic, data, key):
            rows = objective.sample(data, TrajectoryState(jnp.asarray(self.steps)), key)
            like = jax.eval_shape(network.init, key)["params"]
            target = unflatten(like)(fetch(data, rows).target)
            return synthetic._replace(labels=target_labels(network, target, synthetic.images))

        return dict(fields, finalise=finalise, labels=Labels("probabilities"))
