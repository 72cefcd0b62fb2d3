"""Trains PyTorch networks on an npz export, sharing no code with the library; run by hand.

    python -m dd_jax export runs/first/set.safetensors --to npz
    python -m dd_jax evaluate runs/first/set.safetensors --augmentation none --data fashion_mnist
    python experiments/torch_check.py runs/first/set.npz FOLDER_OF_IDX_GZ_FILES

The protocol is that of a FRePo set on grey 28x28 images, without augmentation: a ConvNet of widths
w, 2w, 4w without normalisation, squared error on the stored labels, Adam with 500 steps of warm-up
and a cosine to a hundredth. The two accuracies must agree within the networks' deviation.
"""

from __future__ import annotations

import gzip
import json
import math
import pathlib
import sys

import numpy as np
import torch
from torch import nn

from dd_jax.evaluate import Protocol


def idx(path: pathlib.Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes())[header:], np.uint8)


def network(width: int, classes: int) -> nn.Sequential:
    layers, channels = [], 1
    for i in range(3):
        conv = nn.Conv2d(channels, width * 2**i, 3, padding=3 if i == 0 else 1)
        channels = conv.out_channels
        layers += [conv, nn.ReLU(), nn.AvgPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, classes))
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fan_in = layer.weight[0].numel()
            # A normal cut at two deviations and rescaled to variance 1 / fan_in.
            std = math.sqrt(1 / fan_in) / 0.87962566103423978
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)
    return model


def train(images, labels, *, width: int, steps: int, rate: float) -> nn.Module:
    model = network(width, labels.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, eps=1e-8)
    warmup = min(500, steps // 2)
    for step in range(steps):
        if step < warmup:
            factor = step / warmup
        else:
            t = (step - warmup) / (steps - warmup)
            factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * t))
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        optimizer.zero_grad()
        (0.5 * ((model(images) - labels) ** 2).sum(1).mean()).backward()
        optimizer.step()
    return model


def main() -> None:
    torch.set_num_threads(2)
    export, folder = np.load(sys.argv[1]), pathlib.Path(sys.argv[2])
    protocol = Protocol.from_plain(json.loads(str(export["card"]))["evaluation"])
    images = torch.from_numpy(export["images"]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(export["labels"])
    test = idx(folder / "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    test = (test[:, None] / 255 - export["normaliser_mean"][0]) / export["normaliser_std"][0]
    test = torch.from_numpy(test.astype(np.float32))
    wanted = torch.from_numpy(idx(folder / "t10k-labels-idx1-ubyte.gz", 8).astype(np.int64))
    accuracies = []
    for seed in range(5):
        torch.manual_seed(seed)
        model = train(images, labels, width=protocol.network.width,
                      steps=protocol.plan.epochs, rate=protocol.optimizer.learning_rate)
        with torch.no_grad():
            predicted = torch.cat([model(part).argmax(1) for part in test.split(500)])
        accuracies.append((predicted == wanted).float().mean().item())
    print("torch accuracies", [round(a, 4) for a in accuracies])
    print(f"torch mean {np.mean(accuracies):.4f} deviation {np.std(accuracies):.4f}")


if __name__ == "__main__":
    main()
