"""Steps of DC and of IDC in PyTorch, to time ours against; needs torch, nothing else.

    python -m experiments.benchmarks.torch_dc [update] [inner] [idc] [--width 128] [--threads 2]

Written from the papers' descriptions, ConvNet-3 on 28x28x1, ten classes:

  update  DC's step on the images: 256 real images per class against 1 and 10 synthetic ones,
          cosines of the rows of the gradients, a fresh network; one backward pass for all classes.
  inner   DC's training between two such steps: 50 SGD steps on ten images per class.
  idc     one step of IDC at factor 2: for each class 64 real images against 4 (40) shown ones,
          absolute differences of the convolution gradients, a step of SGD; then the network learns
          500 real images in batches of 64. A shared shift is the only augmentation, no CutMix.

DSA's step is DC's with a cheap augmentation, so it is not timed apart.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from experiments.benchmarks.torch_dm import convnet, median

CLASSES = 10
SHAPE = (1, 28, 28)


def classifier(width: int) -> nn.Sequential:
    return nn.Sequential(convnet(width), nn.Linear(16 * width, CLASSES))


def gradients(network, images, label: int, *, differentiable: bool = False) -> list[torch.Tensor]:
    """Of the mean cross-entropy of images of one class, in every parameter."""
    labels = torch.full((len(images),), label)
    loss = nn.functional.cross_entropy(network(images), labels)
    return torch.autograd.grad(loss, list(network.parameters()), create_graph=differentiable)


def row_cosine(real, synthetic) -> torch.Tensor:
    total = 0.0
    for a, b in zip(real, synthetic):
        if a.ndim > 1:
            a, b = a.flatten(1), b.flatten(1)
            norms = a.norm(dim=1) * b.norm(dim=1)
            total = total + (1 - (a * b).sum(1) / (norms + 1e-6)).sum()
    return total


def conv_absolute(real, synthetic) -> torch.Tensor:
    return sum((a - b).abs().sum() for a, b in zip(real, synthetic) if a.ndim == 4)


def dc_update(synthetic, real, optimizer, width: int) -> None:
    network, loss = classifier(width), 0.0
    for c in range(CLASSES):
        wanted = [g.detach() for g in gradients(network, real[c], c)]
        loss = loss + row_cosine(wanted, gradients(network, synthetic[c], c, differentiable=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train(network, optimizer, images, labels) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(images), labels).backward()
    optimizer.step()


def inner_loop(network, images, labels, *, steps: int = 50) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(steps):
        train(network, optimizer, images, labels)


def shifted(images) -> torch.Tensor:
    return torch.roll(images, tuple(int(s) for s in torch.randint(-4, 5, (2,))), (2, 3))


def shown(stored) -> torch.Tensor:
    """[n, C, H, W] -> [4 n, C, H, W]: quarters, each enlarged to the size of the image."""
    quarters = torch.cat([half for rows in stored.chunk(2, 2) for half in rows.chunk(2, 3)])
    return nn.functional.interpolate(quarters, size=stored.shape[2:], mode="bilinear")


def idc_step(synthetic, optimizer, network, network_optimizer, real, batch) -> None:
    for c in range(CLASSES):
        both = shifted(torch.cat([real[c], shown(synthetic[c])]))
        own, learned = both[: len(real[c])].detach(), both[len(real[c]) :]
        wanted = [g.detach() for g in gradients(network, own, c)]
        loss = conv_absolute(wanted, gradients(network, learned, c, differentiable=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, labels = batch
    for part in torch.arange(len(images)).split(64):
        train(network, network_optimizer, shifted(images[part]), labels[part])


def image_optimizer(ipc: int) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    synthetic = torch.randn(CLASSES, ipc, *SHAPE, requires_grad=True)
    return synthetic, torch.optim.SGD([synthetic], lr=0.1, momentum=0.5)


def time_update(width: int, rounds: int) -> None:
    real = torch.randn(CLASSES, 256, *SHAPE)
    for ipc in (1, 10):
        synthetic, optimizer = image_optimizer(ipc)

        def call(synthetic=synthetic, optimizer=optimizer):
            dc_update(synthetic, real, optimizer, width)

        print(f"torch dc update, {ipc} per class: {median(call, rounds):.3f} s", flush=True)


def time_inner(width: int, rounds: int) -> None:
    network, images = classifier(width), torch.randn(10 * CLASSES, *SHAPE)
    labels = torch.arange(CLASSES).repeat_interleave(10)
    seconds = median(lambda: inner_loop(network, images, labels), rounds)
    print(f"torch dc inner loop, 50 steps, 10 per class: {seconds:.3f} s", flush=True)


def time_idc(width: int, rounds: int) -> None:
    real = torch.randn(CLASSES, 64, *SHAPE)
    batch = (torch.randn(500, *SHAPE), torch.arange(500) % CLASSES)
    network = classifier(width)
    network_optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9,
                                        weight_decay=5e-4)
    for ipc in (1, 10):
        synthetic, optimizer = image_optimizer(ipc)

        def call(synthetic=synthetic, optimizer=optimizer):
            idc_step(synthetic, optimizer, network, network_optimizer, real, batch)

        print(f"torch idc step, {ipc} per class: {median(call, rounds):.3f} s", flush=True)


CASES = {"update": time_update, "inner": time_inner, "idc": time_idc}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for case in options.cases or CASES:
        CASES[case](options.width, options.rounds)


if __name__ == "__main__":
    main()
