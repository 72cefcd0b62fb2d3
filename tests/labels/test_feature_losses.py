"""The losses that look at more than logits: formulas, slopes, invariances, limits, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.labels.losses import (
    cosine,
    covariate_shift,
    hard_views,
    norm_and_direction,
    orthogonal,
    pseudo_classes,
)
from dd_jax.labels.losses.dual_head import binary_kl_norm
from dd_jax.labels.losses.record import make
from dd_jax.labels.losses.table import OF_MORE
from dd_jax.labels.losses.terms import direction, soft_term
from dd_jax.labels.losses.told import Ensemble, Told, Weighted
from dd_jax.nets.extended import ExtendedOutputs, fold
from dd_jax.nets.extras import orthogonal_map
from dd_jax.types import Outputs

COUNT, WIDTH = 3, 5


def arrays(classes, labels="flat", seed=0):
    """What any of the losses may ask for, in float64; z, f, g, s, u are the student's."""
    rng = np.random.default_rng(seed)
    soft = rng.dirichlet(np.ones(classes), size=COUNT)
    told = {"flat": np.full((COUNT, classes), 1 / classes), "soft": soft,
            "one_hot": np.eye(classes)[rng.integers(0, classes, COUNT)]}[labels]
    normal = rng.normal
    widths = (classes, 4, 3, 2)
    layers = [{"kernel": normal(size=size), "bias": 0.5 + normal(size=size[1])}
              for size in zip(widths, widths[1:])]
    return {"z": normal(size=(COUNT, classes)), "z_t": 2 * normal(size=(COUNT, classes)),
            "y": told, "f": normal(size=(COUNT, WIDTH)), "f_t": 2 * normal(size=(COUNT, WIDTH)),
            "m": normal(size=(COUNT, WIDTH)), "s": normal(size=(COUNT, 2, 2, 3)),
            "s_t": normal(size=(COUNT, 2, 2, 3)), "u": normal(size=(COUNT, 4)),
            "u_t": 9 * normal(size=(COUNT, 4)), "g": normal(size=(COUNT, classes)), "d": layers,
            "w": rng.uniform(0.5, 2.0, COUNT)}


def told_of(a):
    return Told(a["y"], a["z_t"], a["f_t"], (a["s_t"], a["u_t"]), a["m"])


def outputs_of(a, extra=None):
    plain = (a["z"], a["f"], (a["s"], a["u"]), {})
    return Outputs(*plain) if extra is None else ExtendedOutputs(*plain, extra=extra)


# ---- NumPy, row by row ----

def log_softmax(z):
    return z - z.max() - np.log(np.exp(z - z.max()).sum())


def by_rows(fn):
    return lambda a: np.array([fn({k: v[i] for k, v in a.items() if k != "d"} | {"d": a["d"]})
                               for i in range(COUNT)])


def ce(r):
    return -(r["y"] * log_softmax(r["z"])).sum()


def kl(teacher, student, t=1.0):
    p = np.exp(log_softmax(teacher / t))
    return t**2 * (p * (log_softmax(teacher / t) - log_softmax(student / t))).sum()


def nd(r):
    e = r["m"] / np.linalg.norm(r["m"])
    return 1 - r["f"] @ e / max(np.linalg.norm(r["f"]), np.linalg.norm(r["f_t"]))


def cos(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def smooth(r):
    t = (r["f_t"] - r["f_t"].mean()) / np.sqrt(r["f_t"].var() + 1e-5)
    return np.mean([0.5 * d * d if abs(d) < 1 else abs(d) - 0.5 for d in r["f"] - t])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bernoulli_half(r, t=2.0):
    q = sigmoid((r["g"] - r["z_t"]) / t)
    return t**2 * sum(0.5 * np.log(0.5 / a) + 0.5 * np.log(0.5 / (1 - a)) for a in q)


def taps(a):
    def share(ours, theirs):
        return ((ours - theirs) ** 2).reshape(COUNT, -1).mean(axis=1) / (theirs**2).mean()

    return share(a["s"], a["s_t"]) + share(a["u"], a["u_t"])


def apart(r):
    total = 0.0
    for z, truth in ((r["z"], (1, 0)), (r["z_t"], (0, 1))):
        for layer in r["d"]:
            z = np.maximum(z @ layer["kernel"] + layer["bias"], 0)
        total += sum(-(t * np.log(sigmoid(x)) + (1 - t) * np.log(sigmoid(-x)))
                     for x, t in zip(z, truth)) / 4
    return total


class Case(NamedTuple):
    ours: Callable
    by_numpy: Callable
    student: str  # names of the arrays that are the student's


CASES = {
    "kd_plus_plus": Case(
        lambda a: make("n", OF_MORE["kd_plus_plus"], {})(outputs_of(a), told_of(a)),
        by_rows(lambda r: ce(r) + kl(r["z_t"], r["z"], 4.0) + 2 * nd(r)), "zf"),
    "vkd": Case(
        lambda a: make("n", OF_MORE["vkd"], {})(outputs_of(a, a["f"]), told_of(a)),
        by_rows(lambda r: smooth(r) + ce(r) + kl(r["z_t"], r["z"])), "zf"),
    "square_head": Case(
        lambda a: make("n", OF_MORE["square_head"], {})(outputs_of(a), told_of(a)),
        lambda a: taps(a) + by_rows(lambda r: ce(r) + kl(r["z_t"], r["z"]))(a), "zsu"),
    "vl2v": Case(
        lambda a: make("n", OF_MORE["vl2v"], {})(outputs_of(a), told_of(a)),
        by_rows(lambda r: ce(r) + 1 - 0.5 * (cos(r["f"], r["f_t"]) + cos(r["f"], r["m"]))), "zf"),
    "dual_head": Case(
        lambda a: make("n", OF_MORE["dual_head"], {})(outputs_of(a, a["g"]), told_of(a)),
        by_rows(lambda r: ce(r) + bernoulli_half(r)), "zg"),
    "meal_v2": Case(
        lambda a: make("n", OF_MORE["meal_v2"], {"adversarial": False})(
            outputs_of(a, a["d"]), Ensemble(a["y"], a["z_t"])),
        by_rows(lambda r: ce(r) + apart(r)), "zd"),
    "lelp": Case(lambda a: make("n", OF_MORE["lelp"], {})(
        a["z"], pseudo_classes.PseudoTargets(a["y"])), by_rows(ce), "z"),
    "soft_term": Case(lambda a: soft_term(a["z"], a["z_t"], 3.0),
                      by_rows(lambda r: kl(r["z_t"], r["z"], 3.0)), "z"),
    "reweighted": Case(
        lambda a: make("n", OF_MORE["reweighted"], {})(a["z"], Weighted(a["z_t"], a["w"])),
        by_rows(lambda r: r["w"] * kl(r["z_t"], r["z"])), "z"),
    "augmenter": Case(
        lambda a: hard_views.augmenter_loss(a["z"], a["z_t"], a["g"], disagree=2.0, same=0.5),
        by_rows(lambda r: 0.5 * kl(r["g"], r["z_t"]) - 2 * kl(r["z_t"], r["z"])), "z"),
}


def on_device(a, dtype=None):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), a)


def split(a, student):
    return {k: v for k, v in a.items() if k in student}, {
        k: v for k, v in a.items() if k not in student}


def test_every_entry_has_its_law():
    assert set(OF_MORE) <= set(CASES)
    assert all(entry.of == ("outputs" if entry.targets in ("Told", "Ensemble") else "logits")
               for entry in OF_MORE.values())


@pytest.mark.parametrize("labels", ["one_hot", "flat", "soft"])
@pytest.mark.parametrize("classes", [2, 100])
@pytest.mark.parametrize("name", sorted(CASES))
def test_it_is_its_formula_for_each_image(name, classes, labels):
    a = arrays(classes, labels)
    with jax.enable_x64(True):
        ours = CASES[name].ours(on_device(a))
        np.testing.assert_allclose(ours, CASES[name].by_numpy(a), rtol=1e-9, atol=1e-10)
    assert ours.shape == (COUNT,)


@pytest.mark.parametrize("name", sorted(CASES))
def test_its_gradient_is_that_of_differences(name):
    case, a = CASES[name], arrays(4, "soft", seed=1)
    own, rest = split(a, case.student)
    with jax.enable_x64(True):
        slope = jax.grad(lambda own: jnp.sum(case.ours(own | on_device(rest))))(on_device(own))
    leaves, tree = jax.tree.flatten(own)
    for at, (leaf, ours) in enumerate(zip(leaves, jax.tree.leaves(slope))):
        for place in np.ndindex(leaf.shape):
            ends = []
            for way in (1e-6, -1e-6):
                moved = leaf.copy()
                moved[place] += way
                changed = tree.unflatten([*leaves[:at], moved, *leaves[at + 1:]])
                ends.append(case.by_numpy(changed | rest).sum())
            np.testing.assert_allclose(ours[place], (ends[0] - ends[1]) / 2e-6, atol=2e-7)


@pytest.mark.parametrize("size", [80.0, 0.0])
@pytest.mark.parametrize("name", sorted(CASES))
def test_it_is_finite_at_extreme_logits_and_features_of_zeros(name, size):
    a = arrays(4, "one_hot")
    signs = {k: np.sign(a[k]) * size for k in ("z", "z_t", "g")}
    zeros = {k: np.zeros_like(a[k]) for k in ("f", "f_t", "m", "s", "u", "s_t", "u_t")}
    own, rest = split(on_device(a | signs | zeros, jnp.float32), CASES[name].student)
    value, slope = jax.value_and_grad(lambda own: jnp.sum(CASES[name].ours(own | rest)))(own)
    for leaf in jax.tree.leaves((value, slope)):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() < 1e5


def agreeing():
    """A student that is its teacher, and a one-hot label that both are sure of."""
    a = arrays(3, "one_hot")
    a["z"] = a["z_t"] = a["g"] = 900.0 * a["y"]
    a["f"] = np.array(direction(jnp.asarray(a["m"])))
    a["f_t"], a["s_t"], a["u_t"] = a["f"], a["s"], a["u"]
    return a


@pytest.mark.parametrize("name", sorted(set(CASES) - {"meal_v2", "vkd"}))
def test_it_is_zero_without_slope_where_the_student_agrees(name):
    with jax.enable_x64(True):
        own, rest = split(on_device(agreeing()), CASES[name].student)
        value, slope = jax.value_and_grad(lambda own: jnp.sum(CASES[name].ours(own | rest)))(own)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    if name != "kd_plus_plus":  # whose kink is where both lengths are one
        for leaf in jax.tree.leaves(slope):
            np.testing.assert_allclose(leaf, 0.0, atol=1e-6)


def test_vkd_is_zero_at_the_normalised_features():
    f = jnp.asarray(arrays(2)["f_t"], jnp.float32)
    ours = orthogonal.projected_features(orthogonal.layer_normalised(f), f)
    np.testing.assert_allclose(ours, 0.0, atol=1e-12)


# name -> (of rotated, scaled or moved arrays the same, by what)
def _turned(a, names):
    q = np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)))[0]
    return a | {k: a[k] @ q for k in names}


def _permuted(a):
    order = np.random.default_rng(4).permutation(a["z"].shape[1])
    layers = [a["d"][0] | {"kernel": a["d"][0]["kernel"][order]}, *a["d"][1:]]
    return a | {k: a[k][:, order] for k in ("z", "z_t", "y", "g")} | {"d": layers}


INVARIANCES = {
    "rotation of features": (("kd_plus_plus", "vl2v"), lambda a: _turned(a, ("f", "f_t", "m"))),
    "length of features": (("vl2v",), lambda a: a | {"f": 3 * a["f"], "f_t": 0.1 * a["f_t"]}),
    "length of means": (("kd_plus_plus",), lambda a: a | {"m": 7 * a["m"]}),
    "length of all features": (("kd_plus_plus",), lambda a: a | {"f": 3 * a["f"],
                                                                  "f_t": 3 * a["f_t"]}),
    "size of a tap": (("square_head",), lambda a: a | {"u": 9 * a["u"], "u_t": 9 * a["u_t"]}),
    "scale and shift of the teacher's features": (
        ("vkd",), lambda a: a | {"f_t": 1e4 * a["f_t"] + 3.0}),
    "permutation of classes": (sorted(CASES), _permuted),
    "one shift of both logits": (
        ("soft_term", "augmenter", "kd_plus_plus"),
        lambda a: a | {k: a[k] + 5.0 for k in ("z", "z_t", "g")}),
    "shifts of logits": (("lelp", "soft_term", "kd_plus_plus", "vkd", "square_head", "reweighted"),
                         lambda a: a | {"z": a["z"] + 5.0, "z_t": a["z_t"] - 7.0}),
}


@pytest.mark.parametrize("what, name", [(what, name) for what, (names, _) in INVARIANCES.items()
                                        for name in names])
def test_what_it_does_not_see(what, name):
    a = arrays(6, "soft", seed=2)
    with jax.enable_x64(True):
        first, second = (CASES[name].ours(on_device(b)) for b in (a, INVARIANCES[what][1](a)))
    # Layer normalisation's 1e-5 is not scaled along.
    np.testing.assert_allclose(first, second, rtol=1e-4 if what.startswith("scale") else 1e-10)


def test_a_long_feature_of_kd_plus_plus_is_a_cosine():
    a = on_device(arrays(2), jnp.float32)
    np.testing.assert_allclose(
        norm_and_direction.norm_and_direction(100 * a["f"], a["f_t"], a["m"]),
        cosine.cosine_distance(a["f"], a["m"]), rtol=1e-5)


def test_at_high_temperatures_losses_of_logits_are_squared_differences():
    a = arrays(4)
    with jax.enable_x64(True):
        z, t = jnp.asarray(a["z"]), jnp.asarray(a["z_t"])
        apart = z - t
        centred = apart - apart.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(binary_kl_norm(z, t, temperature=1e3),
                                   (apart**2).sum(axis=1) / 8, rtol=1e-4)
        np.testing.assert_allclose(soft_term(z, t, 1e4), (centred**2).sum(axis=1) / 8, rtol=1e-3)


@pytest.mark.parametrize("rows, columns", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_the_map_of_vkd_is_orthonormal_whatever_its_parameters(rows, columns, scale):
    raw = scale * jax.random.normal(jax.random.key(0), (max(rows, columns),) * 2)
    a = np.asarray(orthogonal_map(raw, rows, columns), np.float64)
    product = a.T @ a if rows >= columns else a @ a.T
    np.testing.assert_allclose(product, np.eye(min(rows, columns)), atol=3e-5)


def test_the_reversed_gradient_differs_by_its_sign_alone():
    a = on_device(arrays(4, "soft"), jnp.float32)

    def slopes(adversarial_, weight):
        def total(z, d):
            loss = make("meal_v2", OF_MORE["meal_v2"],
                        {"adversarial": adversarial_, "discriminator": weight})
            return jnp.sum(loss(outputs_of(a | {"z": z}, d), Ensemble(a["y"], a["z_t"])))
        return jax.grad(total, argnums=(0, 1))(a["z"], a["d"])

    (turned, ours), (straight, theirs), (alone, _) = (
        slopes(*setting) for setting in ((True, 1.0), (False, 1.0), (False, 0.0)))
    np.testing.assert_allclose(turned - alone, -(straight - alone), atol=1e-6)
    assert np.abs(turned - alone).max() > 1e-3
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), ours, theirs)


# ---- LELP ----

def teacher_features(classes=3, width=8, count=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    spread = rng.normal(size=(width, width))
    features = rng.normal(size=(count, width)) @ spread + 3 * rng.normal(size=(classes, width))[
        labels]
    return features, labels, rng.normal(size=(width, classes))


def test_pseudo_classes_are_principal_directions_that_logits_do_not_see():
    features, labels, weights = teacher_features()
    found = pseudo_classes.pseudo_classes(features, labels, weights, per_class=3, seed=5)
    assert found.directions.shape == (3, 3, 8)
    hidden = np.eye(8) - weights @ np.linalg.inv(weights.T @ weights) @ weights.T
    for number in range(3):
        own = features[labels == number]
        np.testing.assert_allclose(found.means[number], own.mean(axis=0), rtol=1e-5)
        v = np.asarray(found.directions[number], np.float64)
        np.testing.assert_allclose(v @ weights, 0.0, atol=1e-5)
        inside = (own - own.mean(axis=0)) @ hidden
        values, vectors = np.linalg.eigh(inside.T @ inside / len(own))
        np.testing.assert_allclose(v.T @ np.linalg.pinv(v.T),  # the same subspace
                                   vectors[:, -3:] @ vectors[:, -3:].T, atol=1e-4)
        np.testing.assert_allclose(v @ v.T, np.eye(3) / values[-3:].mean(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(((inside @ v.T) ** 2).mean(), 1.0, rtol=1e-4)


def test_pseudo_probabilities_split_each_class_and_fold_back():
    features, labels, weights = teacher_features()
    found = pseudo_classes.pseudo_classes(features, labels, weights, per_class=2)
    logits = features @ weights
    ours = pseudo_classes.pseudo_probabilities(
        found, jnp.asarray(logits, jnp.float32), jnp.asarray(features, jnp.float32),
        temperature=2.0, tau=0.5)
    for row in range(4):
        wanted = []
        for c in range(3):
            p = np.exp(log_softmax(logits[row] / 2))[c]
            scores = np.asarray(found.directions[c]) @ (features[row] - np.asarray(found.means[c]))
            wanted.append(p * np.exp(log_softmax(scores / 0.5)))
        np.testing.assert_allclose(ours[row], np.concatenate(wanted), rtol=1e-3, atol=1e-6)
    folded = np.exp(fold(jnp.log(ours + 1e-30), 3))
    np.testing.assert_allclose(folded, jax.nn.softmax(logits / 2.0), atol=1e-5)


# ---- HARD ----

def test_the_hardest_view_is_the_one_of_a_plain_search():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 6, 5, 4))
    teacher[:, 4] = 5 * rng.normal(size=(6, 4))  # an image of which no view is the same
    plain = teacher[0] + 0.1
    plain[4] = 50 * rng.normal(size=4)
    ours = hard_views.hardest_view(*(jnp.asarray(x, jnp.float32)
                                     for x in (student, teacher, plain)), limit=0.5)
    for i in range(5):
        away = np.array([kl(plain[i], teacher[j, i]) for j in range(6)])
        hard = np.array([kl(teacher[j, i], student[j, i]) for j in range(6)])
        good = [j for j in range(6) if away[j] <= 0.5]
        assert ours[i] == (max(good, key=lambda j: hard[j]) if good else away.argmin())


def test_affine_views_are_the_identity_without_noise_and_move_by_whole_pixels():
    images = jax.random.normal(jax.random.key(0), (2, 6, 6, 2))
    noise = jnp.zeros((2, 5))
    np.testing.assert_allclose(hard_views.affine_views(jnp.zeros(5), noise, images), images,
                               atol=1e-5)
    down = noise.at[:, 3].set(2 / 3 * 2)  # times sigmoid(0) / 2 half sides: a third, one pixel
    moved = hard_views.affine_views(jnp.zeros(5), down, images)
    np.testing.assert_allclose(moved[:, 1:], images[:, :-1], atol=1e-4)
    np.testing.assert_allclose(moved[:, 0], 0.0, atol=1e-5)


def test_the_ranges_of_affine_views_have_the_slope_of_differences():
    with jax.enable_x64(True):
        images = jax.random.normal(jax.random.key(0), (2, 5, 5, 1), jnp.float64)
        noise = jax.random.uniform(jax.random.key(1), (2, 5), jnp.float64, -1.0)
        raw = jnp.linspace(-1.0, 1.0, 5, dtype=jnp.float64)

        def total(raw):
            return jnp.sum(jnp.sin(hard_views.affine_views(raw, noise, images)))

        slope = jax.grad(total)(raw)
        for i in range(5):
            step = jnp.zeros(5).at[i].set(1e-6)
            np.testing.assert_allclose(slope[i], (total(raw + step) - total(raw - step)) / 2e-6,
                                       atol=1e-6)


# ---- covariate shift ----

def test_both_ratios_find_that_of_two_gaussians():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(4000, 1)), 0.5 + rng.normal(size=(2000, 1))
    truth = np.exp(0.5 * source[:, 0] - 0.125)
    by_logits = covariate_shift.domain_ratio(source, target)
    np.testing.assert_allclose(np.log(by_logits), np.log(truth), atol=0.3)
    powers = [np.concatenate([x**k for k in (1, 2)], axis=1) for x in (source, target)]
    by_squares = covariate_shift.least_squares_ratio(*powers)
    assert np.mean((by_squares - truth) ** 2) < 0.05 * np.var(truth)
    weights = covariate_shift.importance(by_logits)
    np.testing.assert_allclose(weights.mean(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.average(source[:, 0], weights=weights), target.mean(), atol=0.05)


def test_ratios_are_the_minima_that_they_say():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(30, 2)), 0.7 + rng.normal(size=(20, 2))
    score = np.log(covariate_shift.domain_ratio(source, target, ridge=0.1) * 20 / 30)
    a = np.linalg.lstsq(np.c_[source, np.ones(30)], score, rcond=None)[0]

    def value(a):
        ours, theirs = (np.c_[x, np.ones(len(x))] @ a for x in (source, target))
        total = np.log1p(np.exp(ours)).sum() + np.log1p(np.exp(-theirs)).sum()
        return total / 50 + 0.05 * (a[:2] ** 2).sum()

    for step in 1e-5 * np.eye(3):
        assert abs(value(a + step) - value(a - step)) / 2e-5 < 1e-8
    ours, theirs = np.c_[source, np.ones(30)], np.c_[target, np.ones(20)]
    solved = np.linalg.inv(ours.T @ ours / 30 + 0.2 * np.eye(3)) @ theirs.mean(axis=0)
    np.testing.assert_allclose(covariate_shift.least_squares_ratio(source, target, ridge=0.2),
                               np.maximum(ours @ solved, 0), rtol=1e-9)


def test_importance_caps_and_flattens():
    ratio = np.array([0.0, 1.0, 1.0, 100.0])
    capped = covariate_shift.importance(ratio, most=2.0)
    np.testing.assert_allclose(capped.mean(), 1.0, rtol=1e-6)
    assert capped[3] / capped[1] == pytest.approx(2 * ratio.mean())
    np.testing.assert_allclose(covariate_shift.importance(np.array([4.0, 1.0]), power=0.5),
                               [4 / 3, 2 / 3], rtol=1e-6)
