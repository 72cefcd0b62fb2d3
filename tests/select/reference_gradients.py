"""Slow choices by gradients that are written out: float64 and loops, as the papers write them."""

from __future__ import annotations

import itertools

import numpy as np


def written_out(error, inputs):
    """[n, K (P + 1)], each row one image's gradient in the last layer's weights and biases."""
    inputs = np.concatenate([np.float64(inputs), np.ones((len(inputs), 1))], axis=1)
    return np.stack([np.outer(g, h).ravel() for g, h in zip(np.float64(error), inputs)])


def craig_value(chosen, gradients):
    """Facility location on max_dist - dist + 1e-3."""
    far = np.linalg.norm(gradients[:, None] - gradients, axis=2)
    likeness = far.max() - far + 1e-3
    return likeness[:, list(chosen)].max(axis=1).sum() if len(chosen) else 0.0


def craig_weights(chosen, gradients):
    """How many images are nearest to each."""
    far = np.linalg.norm(gradients[:, None] - gradients[list(chosen)], axis=2)
    return np.bincount(far.argmin(axis=1), minlength=len(chosen))


def matching_loss(weights, chosen, gradients, ridge):
    """| b - sum w G |^2 + ridge | w |^2."""
    missing = gradients.mean(axis=0) - weights @ gradients[list(chosen)]
    return missing @ missing + ridge * weights @ weights


def pursuit(gradients, count, ridge):
    """Orthogonal matching pursuit by the residual, each system solved anew."""
    target, chosen = gradients.mean(axis=0), []
    missing = target
    for _ in range(count):
        along = [-np.inf if x in chosen else gradients[x] @ missing for x in range(len(gradients))]
        chosen.append(int(np.argmax(along)))
        some = gradients[chosen]
        weights = np.linalg.solve(some @ some.T + ridge * np.eye(len(chosen)), some @ target)
        missing = target - weights @ some
    return chosen


def best_weights_above_zero(chosen, gradients, ridge):
    """The best of all supports whose weights are not negative."""
    best, found = np.inf, None
    for size in range(len(chosen) + 1):
        for support in itertools.combinations(range(len(chosen)), size):
            weights, support = np.zeros(len(chosen)), list(support)
            some = gradients[np.asarray(chosen)[support]]
            weights[support] = np.linalg.solve(some @ some.T + ridge * np.eye(size),
                                               some @ gradients.mean(axis=0))
            loss = matching_loss(weights, chosen, gradients, ridge)
            if (weights >= 0).all() and loss < best:
                best, found = loss, weights
    return found


def bins(gradients, count):
    """Greedy graph cut on what earlier bins left, with every likeness in a table."""
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    likeness, left, found = (1 + unit @ unit.T) / 2, list(range(len(gradients))), []
    for number in range(count):
        pool, inside = list(left), []
        for _ in range(len(gradients) // count + (number < len(gradients) % count)):
            gain = [likeness[pool, x].sum() - 2 * likeness[inside, x].sum() for x in left]
            inside.append(left.pop(int(np.argmax(gain))))
        found.append(inside)
    return found


def influence(gradients, inputs, held, landmarks, labels, sigma, damping):
    """Cosines with the mean gradients of held-out classes, and kernel ridge regression of them."""
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    targets = np.stack([gradients[held & (labels == label)].mean(axis=0)
                        for label in range(labels.max() + 1)])
    aligned = unit[landmarks] @ (targets / np.linalg.norm(targets, axis=1, keepdims=True)).T
    far = np.linalg.norm(np.float64(inputs)[:, None] - np.float64(inputs), axis=2)
    kernel = np.exp(-(far**2) / (2 * sigma**2))
    gram = kernel[np.ix_(landmarks, landmarks)] + damping * np.eye(len(landmarks))
    return kernel[:, landmarks] @ np.linalg.solve(gram, aligned)


def turns(values, orders, held, count):
    """Classes by their orders take their best image; held-out ones when nothing else is left."""
    left, found = list(range(len(values))), []
    for label in itertools.chain.from_iterable(orders):
        if len(found) == count:
            break
        able = [x for x in left if not held[x]] or left
        found.append(max(able, key=lambda x: values[x, label]))
        left.remove(found[-1])
    return found
