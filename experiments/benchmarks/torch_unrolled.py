"""A meta-step through unrolled training in PyTorch, to time ours against; needs torch alone.

    python -m experiments.benchmarks.torch_unrolled [--width 128] [--ipc 1] [--steps 10]

N steps of gradient descent with momentum on the whole set, all of them kept, then the loss of 256
real images and its gradient in the synthetic ones; ConvNet-3 on 28x28x1. The same plain writing as
`unrolled_steps` measures; memory is what the process grew by at its peak.
"""

from __future__ import annotations

import argparse
import resource

import torch
from torch import nn
from torch.func import functional_call

from experiments.benchmarks.torch_dc import CLASSES, SHAPE, classifier
from experiments.benchmarks.torch_dm import median

REAL, RATE, MOMENTUM = 256, 0.01, 0.9


def step(network, images, labels, real, classes, steps: int) -> None:
    params = {k: v.detach().requires_grad_() for k, v in network.named_parameters()}
    velocity = {k: torch.zeros_like(v) for k, v in params.items()}
    for _ in range(steps):
        loss = nn.functional.cross_entropy(functional_call(network, params, images), labels)
        slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        velocity = {k: MOMENTUM * v + g for (k, v), g in zip(velocity.items(), slopes)}
        params = {k: p - RATE * velocity[k] for k, p in params.items()}
    loss = nn.functional.cross_entropy(functional_call(network, params, real), classes)
    torch.autograd.grad(loss, images)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = classifier(options.width)
    images = torch.randn(CLASSES * options.ipc, *SHAPE, requires_grad=True)
    labels = torch.arange(CLASSES).repeat_interleave(options.ipc)
    real, classes = torch.randn(REAL, *SHAPE), torch.arange(REAL) % CLASSES
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = median(lambda: step(network, images, labels, real, classes, options.steps),
                     options.rounds)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    print(f"torch unrolled step, {options.ipc} per class, N = {options.steps}: {seconds:.3f} s, "
          f"{grown:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
