"""One DM step and one ConvNet gradient in PyTorch, to time ours against; needs torch, nothing else.

    python experiments/benchmarks/torch_dm.py [threads]

Written from the paper's description: 256 real images of each of 10 classes and one synthetic image
per class through a fresh ConvNet-3 of width 128, squared distance of the class means.
Augmentation is a shared shift, its cheapest kind.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch import nn


def convnet(width: int = 128) -> nn.Sequential:
    layers, channels = [], 1
    for i in range(3):
        layers += [nn.Conv2d(channels, width, 3, padding=3 if i == 0 else 1),
                   nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten())


def dm_step(synthetic: torch.Tensor, real: torch.Tensor, optimizer, width: int = 128) -> None:
    network = convnet(width)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    loss = 0.0
    for c in range(10):
        shift = tuple(int(s) for s in torch.randint(-4, 5, (2,)))
        embed_real = network(torch.roll(real[c], shift, (2, 3))).detach()
        embed_syn = network(torch.roll(synthetic[c], shift, (2, 3)))
        loss = loss + ((embed_real.mean(0) - embed_syn.mean(0)) ** 2).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def gradient(network, head, images, labels) -> None:
    nn.functional.cross_entropy(head(network(images)), labels).backward()


def median(call, rounds: int = 5) -> float:
    call()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    torch.manual_seed(0)
    real = torch.randn(10, 256, 1, 28, 28)
    for ipc in (1, 10):
        synthetic = torch.randn(10, ipc, 1, 28, 28, requires_grad=True)
        optimizer = torch.optim.SGD([synthetic], lr=1.0, momentum=0.5)
        seconds = median(lambda s=synthetic, o=optimizer: dm_step(s, real, o))
        print(f"torch dm step, {ipc} per class: {1e3 * seconds:.0f} ms")
    network, head = convnet(), nn.Linear(2048, 10)
    labels = torch.arange(256) % 10
    seconds = median(lambda: gradient(network, head, real[0], labels))
    print(f"torch convnet forward+backward, batch 256: {1e3 * seconds:.0f} ms")


if __name__ == "__main__":
    main()
