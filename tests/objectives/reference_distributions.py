"""Distances of two sets of images from the papers' formulas: float64 NumPy, image by image.

Features are [n, P], activation maps a list over layers of [n, h, w, c].
"""

from __future__ import annotations

import math

import numpy as np


def features_by_hand(params: dict, images) -> np.ndarray:
    """Of a perceptron with one hidden layer of ReLUs: h = relu(x W1 + b1)."""
    x = np.asarray(images, np.float64).reshape(len(images), -1)
    return np.maximum(x @ params["hidden0"]["kernel"] + params["hidden0"]["bias"], 0.0)


def scores_by_hand(params: dict, images) -> np.ndarray:
    return features_by_hand(params, images) @ params["head"]["kernel"] + params["head"]["bias"]


def cross_entropy(logits, labels) -> float:
    """Mean over images of -sum_k y_k log softmax(z)_k."""
    total = 0.0
    for z, y in zip(np.asarray(logits, np.float64), np.asarray(labels, np.float64)):
        log_sum = z.max() + math.log(sum(math.exp(v - z.max()) for v in z))
        total -= sum(target * (v - log_sum) for target, v in zip(y, z))
    return total / len(logits)


def mean_of(vectors) -> np.ndarray:
    total = np.zeros(np.shape(vectors[0]))
    for vector in vectors:
        total = total + np.asarray(vector, np.float64)
    return total / len(vectors)


def mean_distance(real, synthetic) -> float:
    """|| mean f(x) - mean f(s) ||^2."""
    return float(((mean_of(real) - mean_of(synthetic)) ** 2).sum())


def attention_vector(activations, power: int) -> np.ndarray:
    """Sum over channels of |F|^p of one image [h, w, c], flattened, of unit length."""
    height, width, channels = activations.shape
    values = []
    for i in range(height):
        for j in range(width):
            values.append(sum(abs(float(activations[i, j, k])) ** power for k in range(channels)))
    return np.array(values) / max(math.sqrt(sum(v * v for v in values)), 1e-12)


def attention_distance(real, synthetic, *, power: int, weight: float) -> float:
    """DataDAM's; each side is (maps of all layers, features), and the last layer has no part."""
    (real_maps, real_features), (maps, features) = real, synthetic
    total = weight * mean_distance(real_features, features)
    for ours, theirs in zip(real_maps[:-1], maps[:-1]):
        total += mean_distance([attention_vector(f, power) for f in ours],
                               [attention_vector(f, power) for f in theirs])
    return total


def squared_distance(a, b) -> float:
    return float(((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2).sum())


def bandwidth(real, synthetic) -> float:
    """Sum over ordered pairs of |z_i - z_j|^2 / (n^2 - n), z the n images of both sets."""
    both = [*real, *synthetic]
    total = sum(squared_distance(a, b) for a in both for b in both)
    return total / (len(both) ** 2 - len(both))


def similarity(kernel: str, a, b, width: float) -> float:
    if kernel == "linear":
        return float(np.dot(a, b))
    if kernel == "polynomial":
        return (float(np.dot(a, b)) + 1.0) ** 2
    distance = squared_distance(a, b)
    if kernel == "gaussian":
        return sum(math.exp(-distance / (m * width)) for m in (1 / 4, 1 / 2, 1, 2, 4))
    return sum(math.exp(-rate * distance) for rate in (0.1, 1.0, 5.0))  # "laplace"


def kernel_distance(real, synthetic, *, kernel: str, width: float | None = None) -> float:
    """M3D's biased estimate; `width` holds the Gaussian's bandwidth fixed."""
    if kernel == "gaussian" and width is None:
        width = bandwidth(real, synthetic)

    def mean(first, second):
        total = sum(similarity(kernel, a, b, width) for a in first for b in second)
        return total / (len(first) * len(second))

    return mean(synthetic, synthetic) - 2 * mean(synthetic, real) + mean(real, real)


def by_name(name: str, real, synthetic, width: float | None = None) -> float:
    """Of two sides (maps, features): "mean", a kernel, or "attention<p>" of weight 0.3."""
    if name == "mean":
        return mean_distance(real[1], synthetic[1])
    if name.startswith("attention"):
        return attention_distance(real, synthetic, power=int(name[-1]), weight=0.3)
    return kernel_distance(real[1], synthetic[1], kernel=name, width=width)


def gaussians_apart(shift, deviations, scale: float) -> float:
    """E exp(-|x - y|^2 / scale), x ~ N(0, s1^2 I) and y ~ N(shift, s2^2 I)."""
    variance = deviations[0] ** 2 + deviations[1] ** 2
    square = float(np.dot(shift, shift))
    shrunk = (1 + 2 * variance / scale) ** (-len(shift) / 2)
    return shrunk * math.exp(-square / (scale + 2 * variance))
