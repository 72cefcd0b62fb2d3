"""Steps of DataDAM and NCFM in PyTorch, to time ours against; needs torch, nothing else.

    python -m experiments.benchmarks.torch_distribution [datadam] [ncfm] [--ipc 1] [--threads 2]

Written from the papers' descriptions, ConvNet-3 of width 128 on 28x28x1, ten classes; the only
augmentation is a shift shared by a class's real and synthetic images, the cheapest kind:

  datadam  64 real images per class, all classes through one fresh network with batch normalisation,
           attention of power 1 of the first two blocks and mean features; a step of SGD.
  ncfm     class by class 1,024 real images against 4 shown ones for each that is stored, 4,096
           normal frequencies, a step of AdamW; then the cross-entropy of each class's shown images
           under a second network, and a step of AdamW for it.

`experiments.benchmarks.steps` times ours.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from experiments.benchmarks.torch_dc import CLASSES, SHAPE, classifier, shifted, shown
from experiments.benchmarks.torch_dm import convnet, median


class BatchNormNet(nn.Module):
    """ConvNet-3 with batch normalisation that also returns the activations before its poolings."""

    def __init__(self, width: int):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(1 if i == 0 else width, width, 3, padding=3 if i == 0 else 1)
            for i in range(3)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))

    def forward(self, x):
        maps = []
        for conv, norm in zip(self.convs, self.norms):
            x = torch.relu(norm(conv(x)))
            maps.append(x)
            x = nn.functional.avg_pool2d(x, 2)
        return maps, x.flatten(1)


def attention(maps) -> torch.Tensor:
    return nn.functional.normalize(maps.abs().sum(1).flatten(1), dim=1)


def datadam_step(synthetic, real, optimizer, width: int) -> None:
    network = BatchNormNet(width)
    network.requires_grad_(False)
    both = [shifted(torch.cat([real[c], synthetic[c]])) for c in range(CLASSES)]
    count = real.shape[1]
    with torch.no_grad():
        real_maps, real_features = network(torch.cat([b[:count] for b in both]))
    maps, features = network(torch.cat([b[count:] for b in both]))

    def distance(a, b):
        a, b = (x.unflatten(0, (CLASSES, -1)).mean(1) for x in (a, b))
        return ((a - b) ** 2).sum()

    loss = 0.01 * distance(real_features, features)
    for a, b in zip(real_maps[:-1], maps[:-1]):
        loss = loss + distance(attention(a), attention(b))
    optimizer.zero_grad()
    (100 * loss).backward()
    optimizer.step()


def characteristic_distance(u, v, frequencies) -> torch.Tensor:
    parts = []
    for x in (u, v):
        angles = nn.functional.normalize(x, dim=1) @ frequencies.T
        parts.append((angles.cos().mean(0), angles.sin().mean(0)))
    (real_u, imaginary_u), (real_v, imaginary_v) = parts
    square = (real_u - real_v) ** 2 + (imaginary_u - imaginary_v) ** 2
    return (0.5 * square).clamp_min(1e-12).sqrt().mean()


def ncfm_step(synthetic, real, optimizer, network, calibrating) -> None:
    for c in range(CLASSES):
        count = real.shape[1]
        both = shifted(torch.cat([real[c], shown(synthetic[c])]))
        with torch.no_grad():
            wanted = network(both[:count])
        frequencies = torch.randn(4096, wanted.shape[1])
        loss = 300 * characteristic_distance(wanted, network(both[count:]), frequencies)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for c in range(CLASSES):
        images = shifted(shown(synthetic[c]))
        labels = torch.full((len(images),), c)
        optimizer.zero_grad()
        nn.functional.cross_entropy(calibrating(images), labels).backward()
        optimizer.step()


def time_datadam(ipc: int, width: int, rounds: int) -> None:
    real = torch.randn(CLASSES, 64, *SHAPE)
    synthetic = torch.randn(CLASSES, ipc, *SHAPE, requires_grad=True)
    optimizer = torch.optim.SGD([synthetic], lr=1.0, momentum=0.5)
    seconds = median(lambda: datadam_step(synthetic, real, optimizer, width), rounds)
    print(f"torch datadam step, {ipc} per class: {seconds:.3f} s", flush=True)


def time_ncfm(ipc: int, width: int, rounds: int) -> None:
    real = torch.randn(CLASSES, 1024, *SHAPE)
    synthetic = torch.randn(CLASSES, ipc, *SHAPE, requires_grad=True)
    optimizer = torch.optim.AdamW([synthetic], lr=1e-3, weight_decay=5e-4)
    network, calibrating = convnet(width), classifier(width)
    network.requires_grad_(False)
    calibrating.requires_grad_(False)

    def call():
        ncfm_step(synthetic, real, optimizer, network, calibrating)

    print(f"torch ncfm step, {ipc} per class: {median(call, rounds):.3f} s", flush=True)


CASES = {"datadam": time_datadam, "ncfm": time_ncfm}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for case in options.cases or CASES:
        CASES[case](options.ipc, options.width, options.rounds)


if __name__ == "__main__":
    main()
