"""Gradient matching from the papers' formulas: float64 NumPy, loops over rows, derivatives by hand.

The network is a perceptron with one hidden layer of ReLUs,

  p = softmax(relu(x W1 + b1) W2 + b2),   parameters {"hidden0": {kernel, bias}, "head": {...}}.
"""

from __future__ import annotations

import math

import numpy as np


def as_float64(params) -> dict:
    return {layer: {name: np.asarray(leaf, np.float64) for name, leaf in leaves.items()}
            for layer, leaves in params.items()}


def hidden(params: dict, images) -> np.ndarray:
    x = np.asarray(images, np.float64).reshape(len(images), -1)
    return np.maximum(x @ params["hidden0"]["kernel"] + params["hidden0"]["bias"], 0.0)


def gradient(params: dict, images, labels) -> dict:
    """Of the mean cross-entropy over the images, [B, H, W, C] and probabilities [B, K]."""
    x = np.asarray(images, np.float64).reshape(len(images), -1)
    labels = np.asarray(labels, np.float64)
    h = hidden(params, images)
    logits = h @ params["head"]["kernel"] + params["head"]["bias"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    to_logits = (p * labels.sum(axis=1, keepdims=True) - labels) / len(x)
    to_hidden = (to_logits @ params["head"]["kernel"].T) * (h > 0)
    return {
        "hidden0": {"kernel": x.T @ to_hidden, "bias": to_hidden.sum(axis=0)},
        "head": {"kernel": h.T @ to_logits, "bias": to_logits.sum(axis=0)},
    }


def _leaves(tree) -> list[np.ndarray]:
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in _leaves(tree[name])]
    return [np.asarray(tree, np.float64)]


def row_cosine(real, synthetic) -> float:
    """Sum over weights and output units of 1 - <g, s> / (|g| |s| + 1e-6)."""
    total = 0.0
    for g, s in zip(_leaves(real), _leaves(synthetic)):
        if g.ndim == 1:
            continue
        for unit in range(g.shape[-1]):
            a, b = g[..., unit].ravel(), s[..., unit].ravel()
            total += 1 - (a @ b) / (math.sqrt(a @ a) * math.sqrt(b @ b) + 1e-6)
    return total


def cosine(real, synthetic) -> float:
    a, b = (np.concatenate([x.ravel() for x in _leaves(t)]) for t in (real, synthetic))
    return 1 - float(a @ b) / (math.sqrt(a @ a) * math.sqrt(b @ b) + 1e-6)


def squared(real, synthetic) -> float:
    return sum(float(((g - s) ** 2).sum()) for g, s in zip(_leaves(real), _leaves(synthetic)))


def conv_squared(real, synthetic) -> float:
    pairs = zip(_leaves(real), _leaves(synthetic))
    return sum(float(((g - s) ** 2).sum()) for g, s in pairs if g.ndim == 4)


def conv_absolute(real, synthetic) -> float:
    pairs = zip(_leaves(real), _leaves(synthetic))
    return sum(float(np.abs(g - s).sum()) for g, s in pairs if g.ndim == 4)


def _class_gradients(params, images, labels, real, c: int):
    classes = labels.shape[1]
    ipc = len(images) // classes
    part = slice(c * ipc, (c + 1) * ipc)
    wanted = np.zeros((len(real[c]), classes))
    wanted[:, c] = 1.0
    return gradient(params, real[c], wanted), gradient(params, images[part], labels[part])


def class_loss(params, images, labels, real, c: int) -> float:
    """D of class c alone; images class-major [M, H, W, C], real [K, n, H, W, C]."""
    return row_cosine(*_class_gradients(params, images, labels, real, c))


def class_wise_loss(params, images, labels, real) -> float:
    return sum(class_loss(params, images, labels, real, c) for c in range(labels.shape[1]))


def joint_loss(params, images, labels, real) -> float:
    """Gradients are averaged over classes first; that of the set is one gradient over all of it."""
    classes = labels.shape[1]
    mean = None
    for c in range(classes):
        g = _class_gradients(params, images, labels, real, c)[0]
        mean = _added(mean, g, 1 / classes)
    return row_cosine(mean, gradient(params, images, labels))


def _added(total, tree, scale):
    if isinstance(tree, dict):
        return {name: _added(None if total is None else total[name], tree[name], scale)
                for name in tree}
    return scale * tree + (0.0 if total is None else total)


def central_differences(fn, images, *, step=1e-6, only=None) -> np.ndarray:
    """d fn / d images, pixel by pixel; `only` a slice of the images, the others stay zero."""
    images = np.array(images, np.float64)
    slope = np.zeros_like(images)
    places = np.zeros(images.shape, bool)
    places[slice(None) if only is None else only] = True
    for place in zip(*np.nonzero(places)):
        kept = images[place]
        images[place] = kept + step
        above = fn(images)
        images[place] = kept - step
        slope[place] = (above - fn(images)) / (2 * step)
        images[place] = kept
    return slope
