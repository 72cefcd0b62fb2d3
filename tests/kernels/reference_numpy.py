"""Kernels of wide networks in NumPy float64, with all pairs of positions and plain loops.

Slow and obvious on purpose; shares nothing with the library.
"""

from __future__ import annotations

import numpy as np


def _rectify(k, theta, q1, q2):
    product = q1 * q2
    s = np.sqrt(np.maximum(product - k * k, 0))
    angle = np.where(product > 0, np.arctan2(s, k), np.pi / 2)
    kdot = (np.pi - angle) / (2 * np.pi)
    return s / (2 * np.pi) + kdot * k, kdot * theta


def _conv(k, weight, bias):
    h, w = k.shape[:2]
    padded, out = np.pad(k, 1), np.full_like(k, bias)
    for dy in range(3):
        for dx in range(3):
            out += weight / 9 * padded[dy : dy + h, dx : dx + w, dy : dy + h, dx : dx + w]
    return out


def _pool(k):
    h, w = k.shape[0] // 2, k.shape[1] // 2
    out = np.zeros((h, w, h, w))
    for a, b, c, d in np.ndindex(out.shape):
        window = k[2 * a : 2 * a + 2, 2 * b : 2 * b + 2, 2 * c : 2 * c + 2, 2 * d : 2 * d + 2]
        out[a, b, c, d] = window.mean()
    return out


def one_pair(layers, x, y):
    """(K, Theta) of two images [H, W, C]; layers are (op, weight, bias)."""
    covs = [np.einsum("abc,dec->abde", u, v) / x.shape[2] for u, v in ((x, y), (x, x), (y, y))]
    theta, flat = np.zeros_like(covs[0]), False
    for op, weight, bias in layers:
        if op == "conv":
            covs = [_conv(k, weight, bias) for k in covs]
            theta = covs[0] + _conv(theta, weight, 0.0)
        elif op == "dense":
            covs = [weight * k + bias for k in covs]
            theta = covs[0] + weight * theta
        elif op == "relu":
            q1, q2 = (k if flat else np.einsum("abab->ab", k) for k in covs[1:])
            pairs = (q1, q2), (q1, q1), (q2, q2)
            if not flat:
                pairs = [(u[:, :, None, None], v[None, None]) for u, v in pairs]
            new, theta = _rectify(covs[0], theta, *pairs[0])
            covs = [new, *(_rectify(k, 0, *p)[0] for k, p in zip(covs[1:], pairs[1:]))]
        elif op == "average_pool":
            covs, theta = [_pool(k) for k in covs], _pool(theta)
        elif op == "flatten":
            mean = lambda k: np.einsum("abab->", k) / (k.shape[0] * k.shape[1])  # noqa: E731
            covs, theta, flat = [mean(k) for k in covs], mean(theta), True
        elif op == "global_average_pool":
            covs, theta, flat = [k.mean() for k in covs], theta.mean(), True
        else:
            raise ValueError(op)
    return covs[0], theta


def kernel(layers, images1, images2):
    """(K, Theta) [n1, n2] of images [n, H, W, C]."""
    made = np.array([[one_pair(layers, x, y) for y in images2] for x in images1])
    return made[..., 0], made[..., 1]
