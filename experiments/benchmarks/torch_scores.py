"""Scores of all images by a ConvNet in PyTorch, to time ours against; needs torch and NumPy.

A plain loop over batches: an epoch of SGD, then EL2N, GraNd of the last layer and the label's
probability of every image, in evaluation mode.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from experiments.benchmarks.torch_dm import convnet

BATCH, CLASSES = 256, 10


def batches(images: np.ndarray, labels: np.ndarray, order: np.ndarray):
    """Float images [b, 1, H, W] in [0, 1] and labels [b]."""
    for start in range(0, len(order), BATCH):
        rows = order[start:start + BATCH]
        yield (torch.from_numpy(np.float32(images[rows] / 255)).permute(0, 3, 1, 2),
               torch.from_numpy(np.int64(labels[rows])))


def networks(width: int) -> tuple[nn.Module, nn.Module]:
    """The features of 28 x 28 x 1 images, and the last layer."""
    return convnet(width), nn.Linear(16 * width, CLASSES)


def look(body: nn.Module, head: nn.Module, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[3, N]: |p - y|, the same times sqrt(1 + |h|^2), and the label's probability."""
    found = []
    with torch.no_grad():
        for x, y in batches(images, labels, np.arange(len(labels))):
            h = body(x)
            p = torch.softmax(head(h), dim=1)
            error = (p - nn.functional.one_hot(y, CLASSES)).norm(dim=1)
            found.append(torch.stack([error, error * (1 + h.square().sum(1)).sqrt(),
                                      p.gather(1, y[:, None])[:, 0]]))
    return torch.cat(found, dim=1).numpy()


def looked(images: np.ndarray, labels: np.ndarray, width: int) -> np.ndarray:
    """The scores by networks as they start."""
    return look(*networks(width), images, labels)


def trained(images: np.ndarray, labels: np.ndarray, width: int) -> np.ndarray:
    """The scores after an epoch of training."""
    body, head = networks(width)
    sgd = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.1, momentum=0.9,
                          nesterov=True)
    for x, y in batches(images, labels, np.random.default_rng(0).permutation(len(labels))):
        sgd.zero_grad()
        nn.functional.cross_entropy(head(body(x)), y).backward()
        sgd.step()
    return look(body, head, images, labels)
