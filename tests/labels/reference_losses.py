"""Every loss on logits once more: slow, in float64 NumPy, from probabilities and loops.

Each is reference(z, told, held, **options) -> [B]. `held` are the logits at which whatever a loss
takes as constant is worked out, so that differences in z are its derivative.
"""

from __future__ import annotations

import itertools

import numpy as np


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def relative(p, log_q, log_p):
    """KL of one row."""
    return sum(p[k] * (log_p[k] - log_q[k]) for k in range(len(p)) if p[k] > 0)


def soft(z, temperature):
    return softmax(z / temperature), log_softmax(z / temperature)


def each(function):
    """A loss of rows, from that of one row: (z, told, held, **options) -> number."""
    def of_rows(z, told, held, **options):
        def row(tree, i):
            if isinstance(tree, tuple):
                return type(tree)(*(row(part, i) for part in tree))
            return tree[i]

        return np.array([function(z[i], row(told, i), held[i], **options) for i in range(len(z))])

    return of_rows


@each
def cross_entropy(z, told, held):
    return -(told * log_softmax(z)).sum()


@each
def integer_cross_entropy(z, told, held):
    return -log_softmax(z)[told]


@each
def squared_error(z, told, held):
    return 0.5 * ((z - told) ** 2).sum()


@each
def mean_squared_error(z, told, held):
    return ((z - told) ** 2).sum() / len(z)


@each
def mse(z, told, held, centred=False):
    if centred:
        z, told = z - z.mean(), told - told.mean()
    return ((z - told) ** 2).mean()


@each
def kl(z, told, held, temperature=4.0, rescale=True):
    (p, log_p), (_, log_q) = soft(told, temperature), soft(z, temperature)
    return (temperature**2 if rescale else 1) * relative(p, log_q, log_p)


@each
def reverse_kl(z, told, held, temperature=1.0, rescale=True):
    (_, log_p), (q, log_q) = soft(told, temperature), soft(z, temperature)
    return (temperature**2 if rescale else 1) * relative(q, log_p, log_q)


@each
def js(z, told, held, share=0.1, temperature=1.0, rescale=True):
    (p, log_p), (q, log_q) = soft(told, temperature), soft(z, temperature)
    log_m = np.log(share * p + (1 - share) * q)
    apart = share * relative(p, log_m, log_p) + (1 - share) * relative(q, log_m, log_q)
    return (temperature**2 if rescale else 1) * apart


@each
def tvd(z, told, held, temperature=1.0, rescale=True):
    apart = np.abs(softmax(told / temperature) - softmax(z / temperature)).sum()
    return (temperature**2 if rescale else 1) * apart / 2


@each
def adaptive_kl(z, told, held, head=0.5, temperature=1.0):
    (p, log_p), (q, log_q) = soft(told, temperature), soft(z, temperature)
    there = softmax(held / temperature)
    order = sorted(range(len(p)), key=lambda k: -p[k])
    gaps, mass = {True: 0.0, False: 0.0}, 0.0
    for place, k in enumerate(order):
        mass += p[k]
        gaps[place == 0 or mass <= head] += abs(p[k] - there[k])
    weight = gaps[True] / (gaps[True] + gaps[False])
    return weight * relative(p, log_q, log_p) + (1 - weight) * relative(q, log_p, log_q)


@each
def alpha_beta(z, told, held, alpha=0.2, beta=0.7, temperature=1.0):
    p, q = softmax(told / temperature), softmax(z / temperature)
    both = alpha + beta
    if alpha == beta == 0:
        return 0.5 * ((np.log(p) - np.log(q)) ** 2).sum()
    if beta == 0:
        return (p**alpha * np.log(p**alpha / q**alpha) - p**alpha + q**alpha).sum() / alpha**2
    if alpha == 0:
        return (q**beta * np.log(q**beta / p**beta) - q**beta + p**beta).sum() / beta**2
    return -(p**alpha * q**beta - alpha / both * p**both
             - beta / both * q**both).sum() / (alpha * beta)


@each
def skew_kl(z, told, held, skew=0.1, temperature=1.0):
    (p, log_p), q = soft(told, temperature), softmax(z / temperature)
    return relative(p, np.log(skew * p + (1 - skew) * q), log_p)


@each
def skew_reverse_kl(z, told, held, skew=0.1, temperature=1.0, flows=False):
    p, (q, log_q) = softmax(told / temperature), soft(z, temperature)
    in_mixture = q if flows else softmax(held / temperature)
    return relative(q, np.log((1 - skew) * p + skew * in_mixture), log_q)


def distillm2(z, told, held, balance=1.0, skew=0.1, temperature=1.0):
    options = dict(skew=skew, temperature=temperature)
    forward = skew_kl(z, told.logits, held, **options)
    reverse = skew_reverse_kl(z, told.logits, held, **options)
    return np.array([balance * reverse[i] if student else (2 - balance) * forward[i]
                     for i, student in enumerate(told.by_student)])


def sinkhorn(z, told, held, temperature=2.0, epsilon=0.1, rounds=20, unrolled=True):
    def costs(z):
        p, q = softmax(z / temperature), softmax(told / temperature)
        return np.array([[np.abs(a - b).sum() for b in q] for a in p])

    plan = np.exp(-costs(z if unrolled else held) / epsilon)
    for _ in range(rounds):
        plan = plan / plan.sum(axis=1, keepdims=True)
        plan = plan / plan.sum(axis=0, keepdims=True)
    return (plan * costs(z)).sum(axis=1)


@each
def uld(z, told, held, temperature=1.0):
    pairs = itertools.zip_longest(sorted(softmax(z / temperature), reverse=True),
                                  sorted(softmax(told / temperature), reverse=True), fillvalue=0.0)
    return sum(abs(a - b) for a, b in pairs)


@each
def bd_kd(z, told, held, temperature=4.0, delta=2.0, rescale=True):
    (p, log_p), (q, log_q) = soft(told, temperature), soft(z, temperature)
    there, log_there = soft(held, temperature)
    student, teacher = -(there * log_there).sum(), -(p * log_p).sum()
    a, b = (delta if teacher > student else 1), (delta if student > teacher else 1)
    apart = a * relative(p, log_q, log_p) + b * relative(q, log_p, log_q)
    return (temperature**2 if rescale else 1) * apart


@each
def pld(z, told, held, temperature=1.0):
    others = [k for k in range(len(z)) if k != told.labels]
    order = [told.labels, *sorted(others, key=lambda k: -told.logits[k])]
    weights = softmax(told.logits / temperature)
    return sum(weights[order[k]] * (np.log(np.exp(z[order[k:]]).sum()) - z[order[k]])
               for k in range(len(z)))


@each
def taid(z, told, held):
    p = softmax((1 - told.share) * held + told.share * told.logits)
    return -(p * log_softmax(z)).sum()


def luminet(z, told, held, temperature=4.0, scale=33.0):
    def standard(logits):
        out = np.empty_like(logits)
        for k in range(logits.shape[1]):
            column = logits[:, k]
            spread = ((column - column.mean()) ** 2).mean()
            out[:, k] = (column - column.mean()) / np.sqrt(spread + 1e-5)
        return out

    return scale**2 * kl(standard(z), standard(told), z, temperature=temperature,
                         rescale=False)


@each
def binary_kl(z, told, held, temperature=2.0):
    p, q = (1 / (1 + np.exp(-x / temperature)) for x in (told, z))
    logs = [(np.log(x), -np.log1p(np.exp(y / temperature))) for x, y in ((p, told), (q, z))]
    apart = p * (logs[0][0] - logs[1][0]) + (1 - p) * (logs[0][1] - logs[1][1])
    return temperature**2 * apart.sum()


@each
def binary_kl_norm(z, told, held, temperature=2.0):
    q = 1 / (1 + np.exp(-(z - told) / temperature))
    return temperature**2 * (0.5 * np.log(0.5 / q) + 0.5 * np.log(0.5 / (1 - q))).sum()


@each
def dkd(z, told, held, temperature=4.0, alpha=1.0, beta=8.0):
    true = told.labels
    others = [k for k in range(len(z)) if k != true]
    (p, _), (q, _) = soft(told.logits, temperature), soft(z, temperature)
    of_true = [np.array([x[true], x[others].sum()]) for x in (p, q)]
    against = relative(of_true[0], np.log(of_true[1]), np.log(of_true[0]))
    among = [log_softmax(x[others] / temperature) for x in (told.logits, z)]
    return temperature**2 * (alpha * against
                             + beta * relative(np.exp(among[0]), among[1], among[0]))


def dist(z, told, held, temperature=4.0, beta=2.0, gamma=2.0):
    p, q = softmax(told / temperature), softmax(z / temperature)

    def correlation(a, b):
        a, b = a - a.mean(), b - b.mean()
        norms = np.sqrt((a**2).sum()) * np.sqrt((b**2).sum())
        return (a * b).sum() / norms if norms > 1e-8 else 0.0

    classes = np.mean([correlation(p[:, k], q[:, k]) for k in range(z.shape[1])])
    return np.array([temperature**2 * (beta * (1 - correlation(p[i], q[i]))
                                       + gamma * (1 - classes)) for i in range(len(z))])


def over_spread(z):
    spread = np.std(z, ddof=1)
    return (z - z.mean()) / (spread + 1e-7)


@each
def standardised(z, told, held, temperature=2.0, rescale=True):
    (p, log_p), (_, log_q) = soft(over_spread(told), temperature), soft(over_spread(z), temperature)
    return (temperature**2 if rescale else 1) * relative(p, log_q, log_p)


@each
def mixup_kd(z, told, held, labels=0.1, teacher=0.9):
    (p, log_p), (_, log_q) = soft(over_spread(told.logits), 1.0), soft(over_spread(z), 1.0)
    return -labels * (told.labels * log_q).sum() + teacher * relative(p, log_q, log_p)


@each
def ofa(z, told, held, exponent=1.5, temperature=1.0):
    p, log_q = softmax(told.logits / temperature), log_softmax(z / temperature)
    return -sum(((p[k] + 1) ** exponent - 1 if k == told.labels else p[k] ** exponent) * log_q[k]
                for k in range(len(z)))


def class_relation(z, told, held, temperature=4.0, head_temperature=1.0, scale=0.1):
    over, known = temperature * head_temperature, told.shape[1]
    gates = softmax(z / over)[:, :known].sum(axis=1)
    gates = gates / gates.mean()
    told = -(softmax(told / over) * log_softmax(z[:, :known] / over)).sum(axis=1)
    return scale * temperature**2 * gates * told


@each
def sla(z, told, held):
    ways = len(z) // len(told.labels)
    log_q = log_softmax(z)
    return -sum(told.labels[k] * log_q[k * ways + told.ways] for k in range(len(told.labels)))


def gaps_of(z, true, margin):
    return np.array([z[k] - z[true] + margin * (k != true) for k in range(len(z))])


def softest(gaps, temperature):
    over = gaps / temperature
    return temperature * (over.max() + np.log(np.mean(np.exp(over - over.max()))))


@each
def ldr(z, told, held, temperature=1.0, margin=0.1):
    return softest(gaps_of(z, told, margin), temperature)


@each
def adaptive_ldr(z, told, held, temperature=1.0, strength=2.0, margin=0.1):
    """The least value over ever finer grids of lambda."""
    gaps, alpha = gaps_of(z, told, margin), strength * np.log(len(z))
    low, high = temperature * 0.5, temperature + 2 * np.log(len(z)) / alpha
    for _ in range(30):
        grid = np.linspace(low, high, 21)
        values = [softest(gaps, x) + 0.5 * alpha * (x - temperature) ** 2 for x in grid]
        best = int(np.argmin(values))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 20)]
    return min(values)


@each
def ferkd(z, told, held, low=0.15, middle=0.3, high=1.0, smoothing=0.1):
    sure, k = told.probabilities.max(), len(z)
    if sure < low or sure > high:
        return 0.0
    labels = told.probabilities
    if sure < middle:
        labels = np.array([1 - smoothing if c == told.classes else smoothing / (k - 1)
                           for c in range(k)])
    return -(labels * log_softmax(z)).sum()


def mst(z, told, held, temperature=4.0, teachers=1, rescale=True):
    out = []
    for i in range(len(z)):
        picked = sorted(range(told.gates.shape[1]), key=lambda m: -told.gates[i, m])[:teachers]
        out.append(np.mean([kl(z[i:i + 1], told.logits[i, m][None], z[i:i + 1],
                               temperature=temperature, rescale=rescale)[0] for m in picked]))
    return np.array(out)


def swing(z, told, held, low=1.0, high=8.0, rescale=True):
    return np.array([kl(z[i:i + 1], told.logits[i:i + 1], z[i:i + 1], rescale=rescale,
                        temperature=low + (high - low) * told.privacy[i])[0]
                     for i in range(len(z))])


def augmix(z, told, held, weight=12.0):
    count = len(z) // 3
    out = np.zeros(len(z))
    for i in range(count):
        rows = [i, count + i, 2 * count + i]
        p = softmax(z[rows])
        log_m = np.log(p.mean(axis=0))
        apart = np.mean([relative(p[j], log_m, np.log(p[j])) for j in range(3)])
        out[rows] = weight * apart
        out[i] -= 3 * (told[i] * log_softmax(z[i])).sum()
    return out
