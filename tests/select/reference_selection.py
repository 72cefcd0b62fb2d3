"""Slow choices in float64 with loops, as the papers write them."""

from __future__ import annotations

import numpy as np


def herding(points, count):
    """argmin_x | (i + 1) mean - sum_S h - h_x |."""
    points, chosen = np.asarray(points, np.float64), []
    for i in range(count):
        missing = (i + 1) * points.mean(axis=0) - points[chosen].sum(axis=0)
        far = [np.inf if x in chosen else np.linalg.norm(missing - points[x])
               for x in range(len(points))]
        chosen.append(int(np.argmin(far)))
    return chosen


def k_center(points, count):
    """The nearest to the mean, then the farthest from all chosen."""
    points = np.asarray(points, np.float64)
    chosen = [int(np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    while len(chosen) < count:
        far = [min(np.linalg.norm(points[x] - points[j]) for j in chosen)
               for x in range(len(points))]
        chosen.append(int(np.argmax(far)))
    return chosen


def likeness(points):
    points = np.asarray(points, np.float64)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    return (1 + points @ points.T) / 2


def facility_location(chosen, points):
    """The value of a set of places."""
    return likeness(points)[:, list(chosen)].max(axis=1).sum() if len(chosen) else 0.0


def graph_cut(chosen, points, weight=1.0):
    """The value of a set of places; each likeness inside it counts twice, with itself once more."""
    s, chosen = likeness(points), list(chosen)
    inside = sum(s[a, b] for i, a in enumerate(chosen) for b in chosen[:i])
    return weight * s[:, chosen].sum() - 2 * inside


def plain_greedy(value, points, count):
    """All values of one image more, each computed anew."""
    chosen = []
    for _ in range(count):
        gains = [-np.inf if x in chosen else value([*chosen, x], points)
                 for x in range(len(points))]
        chosen.append(int(np.argmax(gains)))
    return chosen
