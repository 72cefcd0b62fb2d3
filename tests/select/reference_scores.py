"""Slow scores in float64 with loops, as the papers write them."""

from __future__ import annotations

import numpy as np


def softmax(logits):
    shares = np.exp(np.asarray(logits, np.float64))
    return shares / shares.sum(axis=-1, keepdims=True)


def nearest(point, among, count, *, without=None):
    """Places of the nearest, one distance after the other."""
    far = [np.inf if j == without else np.linalg.norm(np.float64(point) - np.float64(other))
           for j, other in enumerate(among)]
    return list(np.argsort(far, kind="stable")[:count])


def contrast(i, features, logits, count, rows, *, symmetric=False):
    """The mean divergence of one image from its neighbours among `rows`."""
    shares = softmax(logits)
    others = [j for j in rows if j != i]
    near = nearest(features[i], [features[j] for j in others], count)
    found = []
    for j in (others[place] for place in near):
        there = sum(shares[j] * np.log(shares[j] / shares[i]))
        back = sum(shares[i] * np.log(shares[i] / shares[j]))
        found.append((there + back) / 2 if symmetric else there)
    return np.mean(found)


def deepfool(image, logits, slopes, *, steps, overshoot):
    """One image's way to the boundary; slopes gives the gradients of all logits, [K, D]."""
    moved, first = np.zeros_like(image), int(np.argmax(logits(image)))
    for _ in range(steps):
        x = image + (1 + overshoot) * moved
        out, all_slopes = logits(x), slopes(x)
        best = np.inf
        for label in range(len(out)):
            if label == first:
                continue
            slope = all_slopes[label] - all_slopes[first]
            far = (out[first] - out[label]) / np.linalg.norm(slope)
            if far < best:
                best, move = far, far * slope / np.linalg.norm(slope)
        moved = moved + move
        if np.argmax(logits(image + (1 + overshoot) * moved)) != first:
            return np.linalg.norm(moved), True
    return np.linalg.norm(moved), False


def suite_shares(i, tracks, suite, fitted, count, suites=5):
    """Shares of the suites in the nearest fitted probes of one trajectory."""
    probes = [j for j in np.flatnonzero(fitted) if j != i]
    near = nearest(tracks[i], [tracks[j] for j in probes], count)
    kinds = [suite[probes[place]] for place in near]
    return [kinds.count(number) / count for number in range(suites)]


def worst_gain(shares, gains, wrong):
    """What is left when the answers that gain most are the wrong ones."""
    return np.sort(np.asarray(shares) * gains)[: len(gains) - wrong].sum()
