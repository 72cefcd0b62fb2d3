"""What is true of single losses: limits, special cases, the pure functions beside them."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.labels.losses import Taught, named
from dd_jax.labels.losses import alpha_beta as alpha_beta_module
from dd_jax.labels.losses.augmix import consistency
from dd_jax.labels.losses.ferkd import Judged, calibrate
from dd_jax.labels.losses.mst import Committee, load_balance
from dd_jax.labels.losses.skewed import Contrast, adaptive_skew, growing_balance
from dd_jax.labels.losses.sla import Shown, aggregated
from dd_jax.labels.losses.standardised import partial_mixup
from dd_jax.labels.losses.swing import Private, shielded
from dd_jax.labels.losses.taid import Interpolated, advance, first_pace
from tests.labels import reference_losses as by_numpy

ROWS, CLASSES = 6, 5
TRUE = jnp.arange(ROWS) % CLASSES


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def pair(seed=0, classes=CLASSES):
    """Logits of a student and of a teacher, [B, K] each."""
    return tuple(jnp.asarray(np.random.default_rng(seed).normal(size=(2, ROWS, classes))))


def close(a, b, rtol=1e-9, atol=1e-12):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", ["kl", "reverse_kl"])
def test_a_hot_kl_is_the_squared_error_of_centred_logits(name):
    close(named(name, temperature=1e4)(*pair()), named("mse", centred=True)(*pair()) / 2, rtol=1e-3)


def test_other_divergences_become_squared_errors_too():
    s, t = pair()
    half = named("mse", centred=True)(s, t) / 2
    for share in (0.1, 0.5):  # KL to the mixture from either side: a (1 - a)^2 + (1 - a) a^2
        hot = named("js", share=share, temperature=1e4)(s, t)
        close(hot, share * (1 - share) * half, rtol=1e-3)
    close(named("binary_kl_norm", temperature=1e4)(s, t), jnp.sum((s - t) ** 2, axis=1) / 8,
          rtol=1e-3)
    close(named("binary_kl", temperature=1e4)(s, t), jnp.sum((s - t) ** 2, axis=1) / 8, rtol=1e-3)


def test_alpha_beta_has_its_limits_and_reaches_them():
    s, t = pair()
    kl, reverse = named("kl", temperature=1.0)(s, t), named("reverse_kl")(s, t)
    of = alpha_beta_module.alpha_beta
    close(of(s, t, alpha=1.0, beta=0.0), kl)
    close(of(s, t, alpha=0.0, beta=1.0), reverse)
    squares = 0.5 * jnp.sum((jax.nn.log_softmax(s) - jax.nn.log_softmax(t)) ** 2, axis=1)
    close(of(s, t, alpha=0.0, beta=0.0), squares)
    for near in (1e-3, 1e-6, 1e-12):
        close(of(s, t, alpha=1.0, beta=near), kl, rtol=3 * near + 1e-9)
        close(of(s, t, alpha=near, beta=1.0), reverse, rtol=3 * near + 1e-9)
    for near in (1e-3, 1e-6):
        close(of(s, t, alpha=near, beta=near), squares, rtol=9 * near)
    close(of(s, t, alpha=0.7, beta=0.2), of(t, s, alpha=0.2, beta=0.7))
    with jax.enable_x64(False):  # no difference of large numbers over a small one
        ours = of(jnp.float32(s), jnp.float32(t), alpha=1.0, beta=1e-5)
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, kl, rtol=1e-4)


def test_js_is_symmetric_at_a_half_and_nothing_at_its_ends():
    s, t = pair()
    close(named("js", share=0.5)(s, t), named("js", share=0.5)(t, s))
    for share in (0.0, 1.0):
        close(named("js", share=share)(s, t), 0.0)


def test_skewed_divergences_are_plain_without_skew_and_bounded_with():
    s, t = pair()
    close(named("skew_kl", skew=0.0)(s, t), named("kl", temperature=1.0)(s, t))
    close(named("skew_reverse_kl", skew=0.0)(s, t), named("reverse_kl")(s, t))
    for name in ("skew_kl", "skew_reverse_kl"):
        assert jnp.all(named(name)(100 * s, 100 * t) <= -np.log(0.1) + 1e-9)
    held, flows = (named("skew_reverse_kl", flows=flows) for flows in (False, True))
    close(held(s, t), flows(s, t))
    slopes = [jax.grad(lambda z, loss=loss: loss(z, t).sum())(s) for loss in (held, flows)]
    assert not np.allclose(*slopes)


def test_the_pair_of_distillm2_is_balanced_by_who_made_the_input():
    s, t = pair()
    by_student = jnp.arange(ROWS) < 2
    loss = named("distillm2", balance=1.5)(s, Contrast(t, by_student))
    close(loss[2:], 0.5 * named("skew_kl")(s, t)[2:])
    close(loss[:2], 1.5 * named("skew_reverse_kl")(s, t)[:2])
    close([growing_balance(p) for p in (0.0, 0.25, 0.5, 1.0)], [1.0, 1.25, 1.5, 1.5])
    skews = adaptive_skew(jnp.log(jnp.array([0.9, 0.9, 0.5])), jnp.log(jnp.array([0.1, 0.45, 0.5])),
                          reference=0.6, skew=0.5)
    close(skews, [0.5, 1 - 0.5 * 0.6 / 0.45001, 0.01])


def test_sinkhorn_does_not_grow_with_the_batch_and_finds_a_permutation():
    s, t = pair()
    loss = named("sinkhorn")
    twice = [jnp.concatenate([z, z]) for z in (s, t)]
    close(loss(*twice).mean(), loss(s, t).mean())
    close(loss(s, t).mean(), loss(s, t[::-1]).mean())
    far = 20 * jnp.eye(CLASSES)
    close(loss(far, far[::-1]), 0.0, atol=1e-4)
    close(named("sinkhorn", unrolled=False)(s, t), loss(s, t))


def test_uld_sees_shapes_alone():
    s, t = pair()
    loss = named("uld")
    close(loss(s[:, ::-1], t[:, [2, 0, 1, 4, 3]]), loss(s, t))
    more = jnp.concatenate([t, jnp.full((ROWS, 3), -1e3)], axis=1)
    close(loss(s, more), loss(s, t))
    close(loss(more, s), loss(t, s))


def test_bd_kd_weighs_the_way_that_the_student_needs():
    s, t = pair()
    forward, reverse = named("kl")(s, t), named("reverse_kl", temperature=4.0)(s, t)
    close(named("bd_kd")(0.01 * s, t), named("kl")(0.01 * s, t)
          + 2 * named("reverse_kl", temperature=4.0)(0.01 * s, t))
    close(named("bd_kd", delta=3.0)(s, 0.01 * t), 3 * named("kl")(s, 0.01 * t)
          + named("reverse_kl", temperature=4.0)(s, 0.01 * t))
    close(named("bd_kd", delta=1.0)(s, t), forward + reverse)


def test_pld_is_cross_entropy_of_a_sure_teacher_and_listmle_of_a_flat_one():
    s, _ = pair()
    sure = Taught(200.0 * jax.nn.one_hot(TRUE, CLASSES, dtype=s.dtype), TRUE)
    close(named("pld")(s, sure), named("integer_cross_entropy")(s, TRUE))
    flat = named("pld")(s, Taught(jnp.zeros_like(s), TRUE))
    for i in range(ROWS):
        order = [int(TRUE[i]), *(k for k in range(CLASSES) if k != TRUE[i])]
        chances = [by_numpy.softmax(np.asarray(s)[i, order[k:]])[0] for k in range(CLASSES)]
        close(flat[i], -np.mean(np.log(chances)))  # of the order, drawn class by class


def test_dkd_with_the_teachers_own_weight_is_kl():
    s, t = pair()
    for i in range(ROWS):
        row = slice(i, i + 1)
        rest = 1 - jax.nn.softmax(t[row] / 4)[0, TRUE[i]]
        loss = named("dkd", beta=float(rest))
        close(loss(s[row], Taught(t[row], TRUE[row])), named("kl")(s[row], t[row]))
    two = pair(classes=2)
    told = Taught(two[1], TRUE % 2)
    close(named("dkd", beta=0.0)(two[0], told), named("dkd")(two[0], told))


def test_ofa_without_exponent_is_cross_entropy_to_the_teacher():
    s, t = pair()
    close(named("ofa", exponent=1.0)(s, Taught(t, TRUE)),
          named("cross_entropy")(s, jax.nn.softmax(t)))


def test_taid_begins_without_slope_and_ends_at_the_teacher():
    s, t = pair()

    def slope(share):
        return jax.grad(lambda z: named("taid")(z, Interpolated(t, jnp.full(ROWS, share))).sum())(s)

    close(slope(0.0), 0.0)
    close(slope(1.0), jax.grad(lambda z: named("kl", temperature=1.0)(z, t).sum())(s))
    close(slope(0.3), jax.nn.softmax(s) - jax.nn.softmax(0.7 * s + 0.3 * t))


def test_the_pace_of_taid_is_its_recurrence():
    losses = [2.0, 1.0, 1.5, 0.5, 0.4, 0.39]
    pace, share, before, momentum = first_pace(0.4), 0.4, None, 0.0
    for step, loss in enumerate(losses):
        progress = step / 20
        if before is not None:
            momentum = 0.9 * momentum + 0.1 * (before - loss) / before
            gain = 0.2 / (1 + np.exp(-momentum)) * (1 - share)
            share = min(0.95, max(0.4 + 0.55 * progress, share + gain))
        before = loss
        pace = advance(pace, jnp.float64(loss), progress, end=0.95, alpha=0.2, beta=0.9)
        close(pace.share, share, rtol=1e-6)
    assert share > 0.4 + 0.55 * progress and int(pace.steps) == len(losses)
    close(advance(pace, jnp.float64(0.3), 1.0, end=0.95).share, 0.95, rtol=1e-6)
    close(jax.grad(lambda x: advance(pace, x, 0.0).share)(0.3), 0.0)


def test_what_luminet_sees_of_a_batch():
    s, t = pair()
    loss = named("luminet", scale=1.0)
    plain = loss(s, t)
    close(loss(s + jnp.arange(CLASSES), t), plain)  # a number for each class
    np.testing.assert_allclose(loss(s * (1.0 + jnp.arange(CLASSES)), t), plain, atol=1e-4)
    close(loss(s[:1], t[:1]), 0.0)


def test_dist_does_not_see_a_straight_line():
    s, _ = pair()
    mixed = 0.3 * jax.nn.softmax(s / 4) + 0.7 / CLASSES
    close(named("dist")(s, 4 * jnp.log(mixed)), 0.0, atol=1e-9)


def test_standardised_losses_do_not_see_the_scale():
    s, t = pair()
    np.testing.assert_allclose(named("standardised")(5 * s + 2, 0.1 * t),
                               named("standardised")(s, t), rtol=1e-4)
    labels = jax.nn.one_hot(TRUE, CLASSES, dtype=s.dtype)
    np.testing.assert_allclose(named("mixup_kd")(5 * s + 2, Taught(0.1 * t, labels)),
                               named("mixup_kd")(s, Taught(t, labels)), rtol=1e-4)
    close(named("mixup_kd", labels=0.0, teacher=1.0)(s, Taught(t, labels)),
          named("standardised", temperature=1.0)(s, t))


def test_partial_mixup_leaves_exactly_a_share_alone():
    kept = [np.asarray(partial_mixup(jax.random.key(seed), 50, share=0.9)) for seed in range(4)]
    assert all((k == 1).sum() == 45 and k.min() >= 0 for k in kept)
    assert len({tuple(np.flatnonzero(k < 1)) for k in kept}) == 4
    assert (partial_mixup(jax.random.key(0), 8, share=1.0) == 1).all()


def test_a_class_relation_of_all_classes_has_no_gate():
    s, t = pair()
    loss = named("class_relation", temperature=2.0, scale=1.0)
    told = named("cross_entropy")(s / 2, jax.nn.softmax(t / 2))
    close(loss(s, t), 4 * told)
    new = jnp.array([[0.0] * 2 + [160.0] * 3] * ROWS)  # all images are of new classes
    with jax.enable_x64(False):
        value = named("class_relation", temperature=1.0)(jnp.float32(new), jnp.float32(t[:, :2]))
        assert np.isfinite(value).all() and value.dtype == jnp.float32


def test_joint_labels_are_those_of_class_and_way():
    rng = np.random.default_rng(0)
    s = jnp.asarray(rng.normal(size=(ROWS, CLASSES * 4)))
    ways = jnp.arange(ROWS) % 4
    labels = jax.nn.one_hot(TRUE, CLASSES, dtype=s.dtype)
    close(named("sla")(s, Shown(labels, ways)), named("integer_cross_entropy")(s, TRUE * 4 + ways))
    once = Shown(labels, jnp.zeros(ROWS, int))
    close(named("sla")(s[:, :CLASSES], once), named("integer_cross_entropy")(s[:, :CLASSES], TRUE))
    shown = jnp.asarray(rng.normal(size=(4, ROWS, CLASSES * 4)))
    found = aggregated(shown, CLASSES)
    for i, k in itertools.product(range(ROWS), range(CLASSES)):
        close(found[i, k], np.mean([shown[j, i, k * 4 + j] for j in range(4)]))


def test_ldr_goes_from_the_largest_gap_to_the_mean():
    s, _ = pair()
    gaps = jnp.stack([s[i] - s[i, TRUE[i]] + 0.2 * (jnp.arange(CLASSES) != TRUE[i])
                      for i in range(ROWS)])
    close(named("ldr", temperature=1e-4, margin=0.2)(s, TRUE), gaps.max(axis=1), atol=1e-3)
    close(named("ldr", temperature=1e6, margin=0.2)(s, TRUE), gaps.mean(axis=1), rtol=1e-4)
    close(named("ldr", margin=0.0)(s, TRUE),
          named("integer_cross_entropy")(s, TRUE) - np.log(CLASSES))
    fixed = named("ldr")(s, TRUE)
    assert jnp.all(named("adaptive_ldr")(s, TRUE) <= fixed + 1e-12)  # lambda_0 is one to choose
    close(named("adaptive_ldr", strength=1e6)(s, TRUE), fixed, rtol=1e-5)


def test_ferkd_keeps_what_is_sure_and_smooths_what_is_not():
    p = jnp.array([[0.7, 0.1, 0.1, 0.1], [0.28, 0.24, 0.24, 0.24], [0.25] * 4,
                   [0.97, 0.01, 0.01, 0.01]])
    classes = jnp.array([1, 1, 2, 0])
    options = dict(low=0.27, middle=0.5, high=0.95, smoothing=0.3)
    labels, counts = calibrate(p, classes, **options)
    assert counts.tolist() == [True, True, False, False]
    close(labels[0], p[0])
    close(labels[1], [0.1, 0.7, 0.1, 0.1])
    s = pair(classes=4)[0][:4]
    told = named("cross_entropy")(s, labels)
    close(named("ferkd", **options)(s, Judged(p, classes)), jnp.where(counts, told, 0.0))


def test_mst_learns_from_the_teachers_that_are_picked():
    s, t = pair()
    told = Committee(jnp.stack([t, s + t, -t], axis=1), jnp.array([[0.1, 0.2, 0.7]] * ROWS))
    close(named("mst")(s, told), named("kl")(s, -t))
    close(named("mst", teachers=2)(s, told), (named("kl")(s, -t) + named("kl")(s, s + t)) / 2)
    gates = jnp.array([[0.9, 0.1], [0.3, 0.7]])
    close(load_balance(gates), 0.5 * (np.log(0.5 / 0.6) + np.log(0.5 / 0.4)))


def test_swing_is_kl_where_all_is_equally_private():
    s, t = pair()
    for privacy, temperature in ((0.0, 1.0), (0.5, 4.5), (1.0, 8.0)):
        close(named("swing")(s, Private(t, jnp.full(ROWS, privacy))),
              named("kl", temperature=temperature)(s, t))
    p = jax.nn.softmax(t)
    noisy = shielded(jax.random.key(0), p, jnp.arange(ROWS) / ROWS, scale=1.0)
    close(noisy.sum(axis=1), 1.0)
    close(noisy[0], p[0])
    assert noisy.min() >= 0 and not np.allclose(noisy[-1], p[-1])
    lost = shielded(jax.random.key(0), -1e3 * jnp.ones((1, 4)), jnp.ones(1))
    close(lost, 0.25)


def test_augmix_is_the_mean_over_images_of_three_views():
    s, t = pair()
    labels = jax.nn.softmax(t)
    views = s.reshape(3, 2, CLASSES)
    wanted = named("cross_entropy")(s[:2], labels[:2]) + 12 * consistency(views)
    loss = named("augmix")(s, labels)
    close(loss.mean(), wanted.mean())
    weights = jnp.array([1.0, 3.0] * 3)
    close((weights * loss).sum() / weights.sum(), (wanted * weights[:2]).sum() / 4)
    close(consistency(views[jnp.array([2, 0, 1])]), consistency(views))
    assert jnp.all(consistency(100 * views) <= np.log(3) + 1e-9)
