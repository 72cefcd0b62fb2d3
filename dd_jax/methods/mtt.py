"""MTT: Dataset Distillation by Matching Training Trajectories (Cazenavette et al., CVPR 2022).

A network trained for some steps on the synthetic set, from a stored point of an expert's training,
arrives where the expert arrived some epochs later; SGD on the pixels and on the network's rate.

Differs from the official code:
  - the rate is stored as a logarithm, stays positive and falls to a half at most in one step; SGD
    acts on the rate itself all the same;
  - an expert and an epoch are drawn in every step (there experts are gone through in shuffled
    order);
  - batches of an inner loop are cut from one permutation after another; where they do not divide
    the set, one goes on in the next permutation (there a smaller batch comes first);
  - inner steps are checkpointed, which changes memory and nothing else;
  - a segment whose expert did not move has loss 0 (there it divides by zero);
  - the accuracy is that of the last set, not the best one seen on the test set;
  - any number of images per class: the settings are those of the largest published budget below;
  - data for which nothing is published have the settings for CIFAR-10, without its whitening.
"""

from __future__ import annotations

from dd_jax.methods.families import by_data
from dd_jax.methods.families.trajectory import Trajectories, narrow


class MTT(Trajectories):
    """Settings of MTT, see `Trajectories`; "official" follows the data."""

    for_data = by_data.MTT
    presets = {
        "official": {
            1: dict(inner_steps=50, max_start=2, rate_rate=1e-7),
            10: dict(inner_steps=30, max_start=20, rate_rate=1e-5, rate=0.001),
            50: dict(inner_steps=30, max_start=40, rate_rate=1e-5, rate=0.001, image_rate=1000.0),
        },
        "cpu": narrow(),
    }
