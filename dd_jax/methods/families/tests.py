"""The tests of sets that kernel regression methods share: FRePo's, and KIP's own.

Differs from the official codes:
  - FRePo's test reports the networks' own weights at the last step. Of sets of more than 500 images
    its batches are permutations (the published script repeats the set in its stored order);
  - in RCIG's, networks train on the set itself, with random mirroring as part of the augmentation
    (there mirror images are appended too, so the set is twice what it is said to be). It is the
    test with augmentation, for the nominal number of steps (the one without is not offered; its
    loop runs 2.5 times as long as it says, at the schedule's floor).
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from dd_jax.evaluate.protocol import Protocol
from dd_jax.methods.frame import Rate, Settings, Site, Whole, one_of

# Steps that a network is trained on a distilled set of this many images (FRePo's code).
_FREPO_STEPS = {10: 1000, 100: 2000, 200: 20000, 400: 5000, 500: 5000, 1000: 10000,
                2000: 40000, 5000: 40000}
# The largest stable learning rate of a network of width w is at least 2 STABLE_RATE / w for KIP's
# loss: 2 n K (1 + momentum) / lambda_max of the empirical tangent kernel was 0.93 / w to 1.43 / w
# on 50 standardised Fashion-MNIST images, for widths 32 and 64 and two initialisations of each.
STABLE_RATE = 0.45


def frepo_test(at: Site, *, width: int, steps: int | None, flip: bool, **options: Any) -> Protocol:
    """FRePo's: Adam with warm-up and cosine on networks without normalisation.

    Args:
      at: the site.
      width: of the networks.
      steps: they are trained for; None: the paper's, of the nearest number of images.
      flip: whether images may be mirrored.
      **options: of the protocol, instead of FRePo's.
    """
    if steps is None:
        nearest = min(_FREPO_STEPS, key=lambda n: abs(math.log(n / at.images)))
        steps = _FREPO_STEPS[nearest]
    size = options.get("batch_size", 500)
    per_epoch = -(-at.images // min(at.images, size))
    usual = dict(
        network="convnet_doubling", norm="none", init_style="lecun", width=width,
        optimizer="adam", learning_rate=3e-4, schedule="warmup_cosine", warmup=500,
        final_fraction=0.01, epochs=-(-steps // per_epoch), batch_size=500,
        augmentation="frepo" if flip else "frepo_digits",
    )
    return at.protocol(options.pop("name", "frepo"), **{**usual, **options})


class KernelTested(Settings):
    """Settings of the networks that test a set of kernel regression.

    Attributes:
      evaluation: "kip" or "frepo", the protocol of the networks that test the set.
      evaluation_width: their width.
      evaluation_steps: steps they are trained for; None: the protocol's own.
      evaluation_rate: their peak rate; None: the protocol's own.
    """

    evaluation: Annotated[str, one_of(("kip", "frepo"), "evaluation protocol")] = "kip"
    evaluation_width: Whole = 1024
    evaluation_steps: Whole | None = None
    evaluation_rate: Rate | None = None

    def kernel_test(self, at: Site, **options: Any) -> Protocol:
        """KIP's protocol, or FRePo's for comparisons.

        KIP's minimises mean_ik 1/2 (f(x_i) - y_ik)^2 + 1/2 1e-3 ||w||^2 by SGD; the protocol's
        loss is twice that, hence half the rate and twice the decay.
        """
        width, steps = self.evaluation_width, self.evaluation_steps
        if self.evaluation_rate is not None:
            options = {"learning_rate": self.evaluation_rate, **options}
        if self.evaluation == "frepo":
            return frepo_test(at, width=width, steps=steps, flip=at.colour, **options)
        steps = 5000 if steps is None else steps
        usual = dict(
            network="convnet_prepended", norm="none", init_style="gaussian", first_padding=1,
            width=width, learning_rate=STABLE_RATE / width, momentum=0.9, weight_decay=2e-3,
            schedule="warmup_cosine", warmup=0, final_fraction=0.0, batch_size=100,
            epochs=max(1, steps // -(-at.images // 100)), loss="mean_squared_error")
        return at.protocol("kip", **{**usual, **options})
