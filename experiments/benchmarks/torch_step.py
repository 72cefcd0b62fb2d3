"""One step of a method in PyTorch on a GPU, or on the CPU where there is none, as JSON.

    python -m experiments.benchmarks.torch_step dm --width 128 --rounds 20

The steps are those of the other files torch_*.py, with official sizes at one image per class, and
FRePo's: 1,024 real images and ten synthetic ones through a ConvNet of doubling width with batch
normalisation, ridge regression, a step of Adam on images and labels, and one on the network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch import nn

from experiments.benchmarks import torch_distribution, torch_mtt, torch_unrolled
from experiments.benchmarks.torch_dc import (
    CLASSES,
    SHAPE,
    classifier,
    dc_update,
    idc_step,
    image_optimizer,
)
from experiments.benchmarks.torch_dm import convnet, dm_step


def doubling(width: int) -> nn.Sequential:
    layers, channels = [], 1
    for i in range(3):
        layers += [nn.Conv2d(channels, width * 2**i, 3, padding=3 if i == 0 else 1),
                   nn.BatchNorm2d(width * 2**i), nn.ReLU(), nn.AvgPool2d(2)]
        channels = width * 2**i
    return nn.Sequential(*layers, nn.Flatten())


def frepo(width: int):
    network, head = doubling(width), nn.Linear(16 * 4 * width, CLASSES)
    images = torch.randn(CLASSES, *SHAPE, requires_grad=True)
    labels = (torch.eye(CLASSES) - 0.1).requires_grad_()
    real, targets = torch.randn(1024, *SHAPE), torch.eye(CLASSES)[torch.arange(1024) % CLASSES]
    outer = torch.optim.Adam([images, labels], lr=3e-4)
    inner = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=3e-4)

    def step():
        with torch.no_grad():
            seen = network(real)
        features = network(images)
        gram = features @ features.T
        ridge = 1e-6 * gram.trace() / CLASSES * torch.eye(CLASSES)
        predicted = seen @ (features.T @ torch.linalg.solve(gram + ridge, labels))
        outer.zero_grad()
        (0.5 * ((predicted - targets) ** 2).sum(1).mean()).backward()
        outer.step()
        inner.zero_grad()
        ((head(network(images.detach())) - labels.detach()) ** 2).mean().backward()
        inner.step()

    return step


def dm(width: int):
    real = torch.randn(CLASSES, 256, *SHAPE)
    images = torch.randn(CLASSES, 1, *SHAPE, requires_grad=True)
    optimizer = torch.optim.SGD([images], lr=1.0, momentum=0.5)
    return lambda: dm_step(images, real, optimizer, width)


def dc(width: int):
    real = torch.randn(CLASSES, 256, *SHAPE)
    images, optimizer = image_optimizer(1)
    return lambda: dc_update(images, real, optimizer, width)


def idc(width: int):
    real, network = torch.randn(CLASSES, 64, *SHAPE), classifier(width)
    batch = (torch.randn(500, *SHAPE), torch.arange(500) % CLASSES)
    inner = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images, optimizer = image_optimizer(1)
    return lambda: idc_step(images, optimizer, network, inner, real, batch)


def mtt(width: int):
    network = classifier(width)
    start = {k: v.detach() for k, v in network.named_parameters()}
    target = {k: v + 0.01 * torch.randn_like(v) for k, v in start.items()}
    images = torch.randn(CLASSES, *SHAPE, requires_grad=True)
    rate, labels = torch.tensor(0.01, requires_grad=True), torch.arange(CLASSES)
    return lambda: torch_mtt.step(network, images, labels, rate, start, target, 50)


def unrolled(width: int):
    network = classifier(width)
    images = torch.randn(CLASSES * 32, *SHAPE, requires_grad=True)
    labels = torch.arange(CLASSES).repeat_interleave(32)
    real, classes = torch.randn(640, *SHAPE), torch.arange(640) % CLASSES
    return lambda: torch_unrolled.step(network, images, labels, real, classes, 150)


def datadam(width: int):
    real = torch.randn(CLASSES, 64, *SHAPE)
    images = torch.randn(CLASSES, 1, *SHAPE, requires_grad=True)
    optimizer = torch.optim.SGD([images], lr=1.0, momentum=0.5)
    return lambda: torch_distribution.datadam_step(images, real, optimizer, width)


def ncfm(width: int):
    real = torch.randn(CLASSES, 1024, *SHAPE)
    images = torch.randn(CLASSES, 1, *SHAPE, requires_grad=True)
    optimizer = torch.optim.AdamW([images], lr=1e-3, weight_decay=5e-4)
    network, calibrating = convnet(width), classifier(width)
    network.requires_grad_(False)
    calibrating.requires_grad_(False)
    return lambda: torch_distribution.ncfm_step(images, real, optimizer, network, calibrating)


STEPS = {"frepo": frepo, "dm": dm, "dc": dc, "idc": idc, "mtt": mtt, "unrolled": unrolled,
         "datadam": datadam, "ncfm": ncfm}


def waited(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(call, device: str, rounds: int) -> list[float]:
    for _ in range(3):
        call()
    seconds = []
    for _ in range(rounds):
        waited(device)
        start = time.perf_counter()
        call()
        waited(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_device(device)
    torch.manual_seed(0)
    seconds = timed(STEPS[options.step](options.width), device, options.rounds)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(json.dumps({"step": options.step, "width": options.width, "device": name,
                      "seconds": statistics.median(seconds), "rounds": options.rounds,
                      "torch": torch.__version__}))


if __name__ == "__main__":
    main()
