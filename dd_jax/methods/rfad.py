"""RFAD: Efficient Dataset Distillation using Random Feature Approximation (Loo et al., 2022).

Kernel ridge regression on the features of random networks, new ones in every step; AdaBelief on
the images, their labels, a matrix that all images are multiplied by, and a temperature.

Differs from the official code:
  - the real images by which the best set is found are distinct and drawn from all alike (there as
    many of each class, with replacement); the last step is validated, too;
  - the learned labels and the Platt loss are flags there, off unless given; both are on here;
  - the regression's Gram matrix, factor and solves are float64, predictions from its weights
    float32 (there the Gram matrix is float32, the predictions float64);
  - a step's 5,120 real images are distinct; there four batches of 1,280 may overlap;
  - networks that test the set are trained for a fixed number of steps, since a test is given no
    real images to stop by (official: at most 20,000, until 500 pass without a better accuracy on
    such images, which is then the one kept); sets of any size go whole (there up to 512 images;
    larger ones in random batches of 513);
  - sets without a row in the paper's table of tests take that of Fashion-MNIST if grey and of
    CIFAR-10 if not, and the number of images per class nearest to theirs.
"""

from __future__ import annotations

import math

import optax

from dd_jax import pools
from dd_jax.distill.best_so_far import BestSoFar
from dd_jax.evaluate import Protocol, ReadOut
from dd_jax.methods.frame import ConvNets, LabelHead, Rate, Site, Whitened, Whole
from dd_jax.objectives.random_feature_ridge import random_feature_ridge
from dd_jax.synthetic import Labels, pixels
from dd_jax.synthetic.preconditioned import preconditioned
from dd_jax.types import DataSpec, Objective

# Learning rate, output scale and pull to the initial weights with which networks are trained on a
# distilled set of 1, 10 and 50 images per class (official evaluation).
_EVALUATION = {
    "mnist": ((1e-3, 8.0, 1e-3), (1e-2, 8.0, 1e-3), (1e-2, 8.0, 0.0)),
    "fashion_mnist": ((1e-3, 8.0, 0.0), (1e-2, 8.0, 1e-3), (1e-3, 2.0, 0.0)),
    "svhn": ((1e-3, 16.0, 0.0), (1e-2, 8.0, 0.0), (1e-2, 2.0, 0.0)),
    "cifar10": ((1e-3, 8.0, 0.0), (1e-3, 2.0, 0.0), (1e-2, 2.0, 0.0)),
    "cifar100": ((1e-1, 8.0, 0.0), (1e-1, 2.0, 0.0)),
}


class RFAD(Whitened, ConvNets):
    """Settings of RFAD; the defaults are the official ones.

    Attributes:
      steps: outer steps.
      learning_rate: AdaBelief's, for images and labels.
      preconditioner_rate, temperature_rate: for the matrix and the temperature.
      batch_size: real images per step.
      ridge: regulariser, times the mean of the kernel's diagonal.
      networks: random ConvNets in each step.
      loss: "platt" or "squared_error", see `objectives.random_feature_ridge`.
      labels: "learned", "fixed" or "soft".
      validate_every: steps between two validations that find the best set, by its loss on real
        images, with networks, that are equal in every one; None: the last set is kept.
      validation_networks, validation_images: how many; None: 500 images for each class, 100 of a
        hundred classes or more.
      patience: a run ends at the first validation more than so many steps after the best; None:
        never.
      precondition: whether the images are multiplied by a learned matrix.
      normaliser: a name in `data.normalisers`; None: standardise grey images, whiten colour ones
        without centring, those of SVHN after bringing each to zero mean and unit norm.
      evaluation_width: width of the networks that test the set.
      evaluation_steps: steps they are trained for, each on the whole set.
      evaluation_rate: their learning rate; None: the paper's, by data and images per class.
    """

    steps: Whole = 100_000
    learning_rate: Rate = 1e-3
    preconditioner_rate: Rate = 5e-5
    temperature_rate: Rate = 1e-2
    batch_size: Whole = 5120
    ridge: Rate = 5e-3
    networks: Whole = 8
    width: Whole = 256
    loss: str = "platt"
    labels: LabelHead = "learned"
    validate_every: Whole | None = 40
    validation_networks: Whole = 16
    validation_images: Whole | None = None
    patience: Whole | None = 1000
    precondition: bool = True
    evaluation_width: Whole = 1024
    evaluation_steps: Whole = 20_000
    evaluation_rate: Rate | None = None

    presets = {
        "official": {},
        # Narrow networks, trained for few steps, move as far as wide ones only at a higher rate; at
        # 0.1 they are near to instability. A small real batch pays for twice the steps, and so many
        # networks and images make a validation cost as much as six of them.
        "cpu": {0: dict(steps=800, learning_rate=1e-2, temperature_rate=3e-2, batch_size=400,
                        networks=4, width=32, validate_every=100, validation_networks=8,
                        validation_images=2000, precondition=False, evaluation_steps=1000,
                        evaluation_width=128, evaluation_rate=0.03),
                10: dict(evaluation_width=64, learning_rate=3e-2)},
    }

    def whitening(self, spec: DataSpec) -> str:
        return "zca_per_image" if spec.name == "svhn" else "zca_uncentred"

    def _regression(self, at: Site, networks: int, batch_size: int) -> Objective:
        network = at.convnet(norm="none", init_style="gaussian", first_padding=1)
        return random_feature_ridge(
            network, pools.fresh_pool(network), networks=networks, ridge=self.ridge,
            batch_size=at.rows(batch_size), loss=self.loss)

    def build(self, at: Site) -> dict:
        kind = "probabilities" if self.labels == "soft" else "centred"
        stored, best = pixels(labels=self.labels), None
        if self.validate_every is not None:
            each = 100 if at.classes >= 100 else 500
            judge = self._regression(at, self.validation_networks,
                                     self.validation_images or at.classes * each)
            best = BestSoFar(judge, self.validate_every, self.patience)
        rates = {"images": self.learning_rate, "labels": self.learning_rate,
                 "preconditioner": self.preconditioner_rate, "temperature": self.temperature_rate}
        return dict(
            objective=self._regression(at, self.networks, self.batch_size),
            best_so_far=best,
            start=at.start(kind, temperature=self.loss == "platt"),
            parameterization=preconditioned(stored) if self.precondition else stored,
            optimizer={name: optax.adabelief(rate, eps=1e-16, eps_root=1e-16)
                       for name, rate in rates.items()},
            labels=Labels(kind),
            evaluation=self._test(at),
        )

    def _test(self, at: Site) -> Protocol:
        """The paper's: wide Gaussian networks, centred, by full-batch gradient descent.

        The loss is mean_ik (f(x_i) - f_0(x_i) - s y_ik)^2 / s^2 + pull ||w - w_0||^2, with f_0 and
        w_0 the network at initialisation.
        """
        other = "cifar10" if at.colour else "fashion_mnist"
        rows = dict(zip((1, 10, 50), _EVALUATION.get(at.spec.name, _EVALUATION[other])))
        rate, scale, pull = rows[min(rows, key=lambda ipc: abs(math.log(ipc / self.ipc)))]
        return at.protocol(
            "rfad", norm="none", init_style="gaussian", first_padding=1, weight_decay=0.0,
            learning_rate=rate if self.evaluation_rate is None else self.evaluation_rate,
            schedule="constant", epochs=self.evaluation_steps, batch_size=at.images,
            loss="mean_squared_error", centre_outputs=True, output_scale=scale, pull=pull,
            read_out=ReadOut(f"convnet{at.depth}", kind="nngp", ridge=self.ridge))
