"""Labels of an epoch of views in PyTorch, to time ours against; needs torch and NumPy.

A plain loop: each image gets a random resized crop and a mirror by itself, as a data loader's
transforms do, then a batch is cut and mixed, looked at by a ConvNet in evaluation mode, and the
five largest probabilities are kept in half precision beside the parameters of the views. `batched`
crops a whole batch by one grid instead, which is as fast as PyTorch gets here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

BATCH, CLASSES, KEPT = 256, 10, 5


def network(width: int) -> nn.Sequential:
    """ConvNet-3 with batch normalisation, for 28 x 28 x 1 images."""
    layers, channels = [], 1
    for i in range(3):
        layers += [nn.Conv2d(channels, width, 3, padding=3 if i == 0 else 1),
                   nn.BatchNorm2d(width), nn.ReLU(), nn.AvgPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * width, CLASSES)).eval()


def windows(count: int, side: int) -> tuple[torch.Tensor, ...]:
    """Tops, lefts, heights and widths of random resized crops, area 0.08..1, aspect 3/4..4/3."""
    size = side * (0.08 + 0.92 * torch.rand(count)).sqrt()
    stretch = torch.exp((torch.rand(count) - 0.5) * np.log(4 / 3))
    heights, widths = (x.round().clamp(1, side).int() for x in (size / stretch, size * stretch))
    tops, lefts = ((torch.rand(count) * (side - x + 1)).int() for x in (heights, widths))
    return tops, lefts, heights, widths


def one_by_one(x: torch.Tensor, boxes: tuple[torch.Tensor, ...], mirrored: torch.Tensor):
    """The views of a batch, image after image."""
    side, seen = x.shape[-1], []
    for i, image in enumerate(x):
        top, left, height, width = (int(b[i]) for b in boxes)
        crop = image[None, :, top:top + height, left:left + width]
        crop = nn.functional.interpolate(crop, (side, side), mode="bilinear", align_corners=False)
        seen.append(crop.flip(3) if mirrored[i] else crop)
    return torch.cat(seen)


def batched(x: torch.Tensor, boxes: tuple[torch.Tensor, ...], mirrored: torch.Tensor):
    """The same by one grid for all images."""
    tops, lefts, heights, widths = (b.float() for b in boxes)
    side = x.shape[-1]
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0] = widths / side * torch.where(mirrored, -1.0, 1.0)
    theta[:, 1, 1] = heights / side
    theta[:, 0, 2] = (2 * lefts + widths) / side - 1
    theta[:, 1, 2] = (2 * tops + heights) / side - 1
    grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, align_corners=False, padding_mode="border")


def relabelled(images: np.ndarray, teacher: nn.Module, show) -> list[tuple[torch.Tensor, ...]]:
    """What is kept of every batch of one epoch."""
    order, side, kept = np.random.default_rng().permutation(len(images)), images.shape[1], []
    with torch.no_grad():
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start:start + BATCH]
            x = torch.from_numpy(np.float32(images[rows] / 255)).permute(0, 3, 1, 2)
            boxes, mirrored = windows(BATCH, side), torch.rand(BATCH) < 0.5
            x = show(x, boxes, mirrored)
            partner, half = torch.randperm(BATCH), int(side * float(torch.rand(())) ** 0.5) // 2
            row, col = (int(torch.randint(0, side, ())) for _ in range(2))
            place = np.s_[:, :, max(row - half, 0):row + half, max(col - half, 0):col + half]
            mixed = x.clone()
            mixed[place] = x[partner][place]
            values, classes = torch.softmax(teacher(mixed), dim=1).topk(KEPT)
            kept.append((torch.from_numpy(rows), *boxes, mirrored, partner, values.half(),
                         classes.to(torch.uint8)))
    return kept
