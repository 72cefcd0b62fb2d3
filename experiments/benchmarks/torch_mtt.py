"""MTT's step and its experts' training in PyTorch, to time ours against; needs torch, nothing else.

    python -m experiments.benchmarks.torch_mtt [step] [experts] [--width 128] [--threads 2]

Written from the paper's description, ConvNet-3 on 28x28x1, ten classes:

  step     N plain gradient steps of a student on the whole set from given parameters, all kept for
           the derivative, then the relative distance and its gradient in images and rate. A shared
           shift stands for the augmentation, which is cheap beside the rest.
  experts  four batches of 256 of an expert's SGD; an epoch of 60,000 has 235.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.func import functional_call

from experiments.benchmarks.torch_dc import CLASSES, SHAPE, classifier, shifted
from experiments.benchmarks.torch_dm import median


def step(network, images, labels, rate, start, target, steps: int) -> None:
    params = {k: v.clone().requires_grad_() for k, v in start.items()}
    for _ in range(steps):
        loss = nn.functional.cross_entropy(functional_call(network, params, shifted(images)),
                                           labels)
        slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        params = {k: p - rate * g for (k, p), g in zip(params.items(), slopes)}
    gap = sum(((params[k] - target[k]) ** 2).sum() for k in params)
    way = sum(((start[k] - target[k]) ** 2).sum() for k in params)
    torch.autograd.grad(gap / way, (images, rate))


def time_step(width: int, rounds: int) -> None:
    network = classifier(width)
    start = {k: v.detach() for k, v in network.named_parameters()}
    target = {k: v + 0.01 * torch.randn_like(v) for k, v in start.items()}
    for ipc, counts in ((1, (10, 20, 50)), (10, (5, 10))):
        images = torch.randn(CLASSES * ipc, *SHAPE, requires_grad=True)
        labels = torch.arange(CLASSES).repeat_interleave(ipc)
        rate = torch.tensor(0.01, requires_grad=True)
        for steps in counts:
            seconds = median(lambda n=steps, x=images, y=labels, r=rate: step(
                network, x, y, r, start, target, n), rounds)
            print(f"torch mtt step, {ipc} per class, N = {steps}: {seconds:.3f} s", flush=True)


def time_experts(width: int, rounds: int) -> None:
    network = classifier(width)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    images, labels = torch.randn(256, *SHAPE), torch.randint(0, CLASSES, (256,))

    def call():
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(shifted(images)), labels).backward()
            optimizer.step()

    seconds = median(call, rounds)
    print(f"torch expert, 4 batches of 256: {seconds:.3f} s, an epoch {seconds * 235 / 4:.1f} s",
          flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=["step", "experts"])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for case in options.cases:
        {"step": time_step, "experts": time_experts}[case](options.width, options.rounds)


if __name__ == "__main__":
    main()
