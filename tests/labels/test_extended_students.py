"""Losses with parameters of their own, trained by `fit`, and students tested without them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError, DataError
from dd_jax.labels import rules, told_by
from dd_jax.labels import teacher as told_as_probabilities
from dd_jax.labels.losses import (
    adversarial,
    cosine,
    covariate_shift,
    hard_views,
    norm_and_direction,
    orthogonal,
    pseudo_classes,
    square_head,
    two_heads,
)
from dd_jax.labels.losses.record import make
from dd_jax.labels.losses.terms import soft_term
from dd_jax.labels.losses.told import Ensemble, Told
from dd_jax.labels.supervision import Views
from dd_jax.nets import extras
from dd_jax.nets.extended import extended, fold, folded, with_extra, without_extra
from dd_jax.train import fit, random_batches, rows_of
from dd_jax.train.supervised import measured_gradient
from dd_jax.types import Augmentation, DataSpec, Outputs

SPEC = DataSpec("toy", (4, 4, 1), 3, ("a", "b", "c"))
STUDENT = nets.mlp(SPEC, width=8, depth=2)
TEACHER = nets.mlp(SPEC, width=6, depth=2)
COUNT = 48


def learnable(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(COUNT) % 3
    images = rng.normal(size=(3, *SPEC.shape))[labels] + 0.5 * rng.normal(size=(COUNT, *SPEC.shape))
    return jnp.asarray(images, jnp.float32), labels


@pytest.fixture(scope="module")
def teacher():
    images, labels = learnable()
    fitted = fit(TEACHER, TEACHER.init(jax.random.key(9)), take=rows_of(images, jnp.eye(3)[labels]),
                 batches=random_batches(COUNT, None, 100), optimizer=optax.adam(1e-2),
                 key=jax.random.key(0))
    return fitted.variables


def named(module, name, **options):
    return make(name, module.ENTRIES[name], options)


def trained(network, supervision, *, steps=80, gradient=None, optimizer=None, start=None):
    images, labels = learnable()
    start = network.init(jax.random.key(1)) if start is None else start
    run = jax.jit(lambda start, supervision: fit(
        network, start, take=rows_of(images, jnp.eye(3)[labels]),
        batches=random_batches(COUNT, 16, steps), optimizer=optimizer or optax.adam(1e-2),
        key=jax.random.key(2), supervision=supervision, gradient=gradient).variables)
    return start, run(start, supervision)


def mean_loss(network, variables, supervision):
    images, labels = learnable()
    views = Views(images, jnp.eye(3)[labels], jnp.arange(COUNT), 0, jax.random.key(0))
    outputs = network.apply(variables, images)
    said = outputs if supervision.loss.of == "outputs" else outputs.logits
    return float(jnp.mean(supervision.loss(said, supervision.targets(supervision.arrays, views))))


def means(variables):
    return told_by.class_means(TEACHER, variables, *learnable(), classes=3)


# name -> (what trains beside the student, (teacher's variables) -> supervision)
EXTENDED = {
    "vkd": (extras.orthogonal_projection(8, 6), lambda v: told_by.teacher_outputs(
        TEACHER, v, loss=named(orthogonal, "vkd"))),
    "kd_plus_plus": (extras.linear_projection(8, 6), lambda v: told_by.teacher_outputs(
        TEACHER, v, loss=named(norm_and_direction, "kd_plus_plus"), means=means(v))),
    "vl2v": (extras.linear_projection(8, 6), lambda v: told_by.teacher_outputs(
        TEACHER, v, loss=named(cosine, "vl2v"), means=means(v))),
    "dual_head": (extras.second_head(8, 3), lambda v: told_by.teacher_outputs(
        TEACHER, v, loss=named(two_heads, "dual_head"))),
    "meal_v2": (extras.discriminator(3, factor=1), lambda v: told_by.ensemble_outputs(
        [(TEACHER, v), (TEACHER, v)], loss=named(adversarial, "meal_v2", discriminator=0.1))),
}


def accuracy_alone(network, variables):
    """Accuracy of the student's own variables, which make the same logits."""
    images, labels = learnable()
    alone = STUDENT.apply(without_extra(variables), images).logits
    np.testing.assert_allclose(alone, network.apply(variables, images).logits, atol=1e-6)
    return float((alone.argmax(axis=1) == labels).mean())


@pytest.mark.parametrize("name", sorted(EXTENDED))
def test_fit_trains_a_student_and_what_is_beside_it(name, teacher):
    extra, supervision_of = EXTENDED[name]
    network, supervision = extended(STUDENT, extra), supervision_of(teacher)
    start, after = trained(network, supervision)
    assert mean_loss(network, after, supervision) < 0.8 * mean_loss(network, start, supervision)
    moved = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), start["params"], after["params"])
    assert all(max(jax.tree.leaves(part)) > 1e-4 for part in moved.values())
    assert accuracy_alone(network, after) > 0.9
    if name == "vkd":
        a = extras.orthogonal_map(after["params"]["extra"]["raw"], 6, 8)
        np.testing.assert_allclose(a @ a.T, np.eye(6), atol=1e-5)


def test_taps_of_the_same_shapes_are_followed(teacher):
    student = nets.mlp(SPEC, width=6, depth=2)
    supervision = told_by.teacher_outputs(TEACHER, teacher,
                                          loss=named(square_head, "square_head"))
    start, after = trained(student, supervision)
    assert mean_loss(student, after, supervision) < 0.8 * mean_loss(student, start, supervision)


def test_a_student_of_pseudo_classes_is_tested_on_classes(teacher):
    images, labels = learnable()
    features = TEACHER.apply(teacher, images).features
    pseudo = pseudo_classes.pseudo_classes(features, labels, teacher["params"]["head"]["kernel"],
                                           per_class=2)
    six = nets.mlp(DataSpec("toy", SPEC.shape, 6, tuple("abcdef")), width=8, depth=2)
    supervision = told_by.pseudo_class_targets(TEACHER, teacher, pseudo,
                                               loss=named(pseudo_classes, "lelp"))
    start, after = trained(six, supervision)
    assert mean_loss(six, after, supervision) < 0.8 * mean_loss(six, start, supervision)
    logits = folded(six, 3).apply(after, images).logits
    assert (logits.argmax(axis=1) == labels).mean() > 0.9
    np.testing.assert_allclose(np.exp(logits - jax.nn.logsumexp(logits, axis=1, keepdims=True)),
                               jax.nn.softmax(six.apply(after, images).logits).reshape(
                                   COUNT, 3, 2).sum(axis=2), atol=1e-5)


def test_reweighted_images_of_weight_zero_do_not_count(teacher):
    weights = jnp.where(jnp.arange(COUNT) % 2 == 0, 2.0, 0.0)
    loss = named(covariate_shift, "reweighted")
    supervision = told_by.reweighted_teacher(TEACHER, teacher, weights, loss=loss)
    images, labels = learnable()
    views = Views(images, None, jnp.arange(COUNT), 0, None)
    told = supervision.targets(supervision.arrays, views)
    variables = STUDENT.init(jax.random.key(0))
    whole = measured_gradient(STUDENT, variables, images, told, loss=loss)[0]
    half = measured_gradient(STUDENT, variables, images[::2], told.logits[::2],
                             loss=lambda z, t: soft_term(z, t))[0]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), whole, half)


@pytest.mark.parametrize("name", ["vkd", "dual_head", "meal_v2", "square_head"])
def test_chunks_do_not_change_the_gradient(name, teacher):
    images, labels = learnable()
    if name == "square_head":
        network = nets.mlp(SPEC, width=6, depth=2)
        supervision = told_by.teacher_outputs(TEACHER, teacher,
                                              loss=named(square_head, "square_head"))
    else:
        extra, supervision_of = EXTENDED[name]
        network, supervision = extended(STUDENT, extra), supervision_of(teacher)
    views = Views(images, jnp.eye(3)[labels], jnp.arange(COUNT), 0, jax.random.key(0))
    told = supervision.targets(supervision.arrays, views)
    variables = network.init(jax.random.key(0))
    first, second = (measured_gradient(network, variables, images, told, loss=supervision.loss,
                                       chunk=chunk)[0] for chunk in (5, COUNT))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), first, second)


# ---- rules of the gradient ----

def parts_of_dual_head(network, variables, told):
    images, _ = learnable()

    def gradient(**shares):
        def total(params):
            outputs = network.apply({**variables, "params": params}, images)
            return jnp.mean(two_heads.dual_head(outputs, told, **shares))
        return jax.grad(total)(variables["params"])

    return gradient(soft=0.0), gradient(hard=0.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_aligned_heads_drop_what_opposes_the_labels(sign, teacher):
    network = extended(STUDENT, extras.second_head(8, 3))
    variables = network.init(jax.random.key(3))
    images, labels = learnable()
    # The second head starts as the first; a teacher of opposite logits then pulls the other way.
    head = variables["params"]["network"]["head"]
    variables["params"]["extra"] = head
    told = Told(jnp.eye(3)[labels], sign * 9.0 * jnp.eye(3)[labels], images)
    by_labels, by_teacher = parts_of_dual_head(network, variables, told)

    def shared(gradient):
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(
            {k: v for k, v in gradient["network"].items() if k != "head"})])

    ce, kd = (shared(g).astype(np.float64) for g in (by_labels, by_teacher))
    assert np.sign(ce @ kd) == sign
    wanted = ce + kd - min(ce @ kd, 0.0) / (ce @ ce) * ce
    rule = rules.aligned_heads()(network, 0)
    ours, after = rule(variables, images, told, jnp.ones(COUNT), images)
    np.testing.assert_allclose(shared(ours), wanted, atol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5),
                 (ours["network"]["head"], ours["extra"]),
                 (by_labels["network"]["head"], by_teacher["extra"]))
    assert after is variables


def test_fit_trains_dual_heads_by_the_aligned_rule(teacher):
    network = extended(STUDENT, extras.second_head(8, 3))
    supervision = EXTENDED["dual_head"][1](teacher)
    start, after = trained(network, supervision, gradient=rules.aligned_heads())
    assert mean_loss(network, after, supervision) < 0.8 * mean_loss(network, start, supervision)
    assert accuracy_alone(network, after) > 0.9


def disagreement(teacher, variables):
    images, _ = learnable()
    return float(soft_term(STUDENT.apply(variables, images).logits,
                           TEACHER.apply(teacher, images).logits).mean())


def test_fit_trains_a_student_against_a_learned_augmenter(teacher):
    network = extended(STUDENT, hard_views.affine_ranges())
    rule = rules.hard_affine(lambda x: TEACHER.apply(teacher, x).logits, same=0.5)
    start, after = trained(network, rules.view_draws(), gradient=rule, steps=120)
    assert disagreement(teacher, without_extra(after)) < 0.5 * disagreement(
        teacher, without_extra(start))
    assert np.abs(after["params"]["extra"]["raw"] - start["params"]["extra"]["raw"]).max() > 1e-3


def test_the_augmenter_alone_makes_views_harder_or_keeps_them_the_same(teacher):
    """A frozen student: without the second term ranges grow, with it alone they shrink."""
    augmenter = hard_views.affine_ranges(share=0.3)
    network = extended(STUDENT, augmenter)
    start = with_extra(trained(STUDENT, told_as_probabilities(TEACHER, teacher))[1], augmenter,
                       jax.random.key(0))
    frozen = optax.multi_transform({"network": optax.set_to_zero(), "extra": optax.adam(0.05)},
                                   {"network": "network", "extra": "extra"})
    ends = {}
    for disagree, same in ((1.0, 0.0), (0.0, 1.0)):
        rule = rules.hard_affine(lambda x: TEACHER.apply(teacher, x).logits, disagree=disagree,
                                 same=same)
        _, after = trained(network, rules.view_draws(), gradient=rule, optimizer=frozen, steps=60,
                           start=start)
        jax.tree.map(np.testing.assert_array_equal, start["params"]["network"],
                     after["params"]["network"])
        raw = (variables["params"]["extra"]["raw"] for variables in (start, after))
        ends[same] = float(-np.subtract(*raw).sum())
    assert ends[1.0] < 0 < ends[0.0]


def test_fit_trains_a_student_on_the_hardest_of_random_views(teacher):
    shift = Augmentation(
        draw=lambda key, count: 0.3 * jax.random.normal(key, (count,)),
        apply=lambda drawn, images: images + drawn[:, None, None, None])
    rule = rules.hardest_of(lambda x: TEACHER.apply(teacher, x).logits, shift, views=3)
    start, after = trained(STUDENT, rules.view_draws(), gradient=rule, steps=120)
    assert disagreement(teacher, after) < 0.5 * disagreement(teacher, start)


def test_running_statistics_stay_those_of_the_student(teacher):
    student = nets.convnet(SPEC, depth=1, width=4, norm="batch")
    width = student.apply(student.init(jax.random.key(0)), jnp.zeros((1, *SPEC.shape))
                          ).features.shape[1]
    network = extended(student, extras.second_head(width, 3))
    for gradient in (None, rules.aligned_heads()):
        start, after = trained(network, EXTENDED["dual_head"][1](teacher), gradient=gradient,
                               steps=3)
        assert set(after) == {"params", "batch_stats"}
        assert max(float(jnp.abs(x - y).max()) for x, y in zip(
            jax.tree.leaves(start["batch_stats"]), jax.tree.leaves(after["batch_stats"]))) > 0
        student.apply(without_extra(after), jnp.zeros((1, *SPEC.shape)))


# ---- sources ----

def test_sources_say_what_the_teacher_says(teacher):
    images, labels = learnable()
    views = Views(images, jnp.eye(3)[labels], jnp.arange(COUNT), 0, None)
    supervision = told_by.teacher_outputs(TEACHER, teacher, loss=print, means=means(teacher))
    told, outputs = supervision.targets(supervision.arrays, views), TEACHER.apply(teacher, images)
    for ours, theirs in zip((told.logits, told.features, *told.taps),
                            (outputs.logits, outputs.features, *outputs.taps)):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for c in range(3):
        np.testing.assert_allclose(told.means[labels == c][0],
                                   np.asarray(outputs.features)[labels == c].mean(axis=0),
                                   atol=1e-5)
    other = TEACHER.init(jax.random.key(5))
    several = told_by.ensemble_outputs([(TEACHER, teacher), (TEACHER, other)], loss=print)
    both = np.stack([outputs.logits, TEACHER.apply(other, images).logits]).astype(np.float64)
    told = several.targets(several.arrays, views)
    odds = np.exp(both)
    np.testing.assert_allclose(told.probabilities,
                               (odds / odds.sum(axis=-1, keepdims=True)).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(told.logits, both.mean(axis=0), atol=1e-5)


# ---- refusals ----

Z, F = jnp.zeros((2, 3)), jnp.ones((2, 4))
TOLD = Told(jnp.full((2, 3), 1 / 3), Z, F, (F,), F)
FEATURES, CLASSES = np.random.default_rng(0).normal(size=(30, 5)), np.arange(30) % 2
WEIGHTS = np.random.default_rng(1).normal(size=(5, 2))
REFUSED = {
    "widths of KD++": (lambda: norm_and_direction.kd_plus_plus(Outputs(Z, F[:, :3]), TOLD),
                       ConfigError, r"features are \[2, 3\] of the student"),
    "no means": (lambda: norm_and_direction.kd_plus_plus(Outputs(Z, F), TOLD._replace(means=None)),
                 ConfigError, "no mean features"),
    "no projection": (lambda: orthogonal.vkd(Outputs(Z, F), TOLD), ConfigError,
                      "needs orthogonal_projection"),
    "width of a projection": (
        lambda: orthogonal.projected_features(F[:, :3], F), ConfigError, "projected features"),
    "features beside a projection": (
        lambda: extras.orthogonal_projection(9, 4).apply({"raw": jnp.eye(9)}, Outputs(Z, F)),
        ConfigError, "has 4 features"),
    "a width of 0": (lambda: extras.orthogonal_projection(0, 4), ConfigError, "student is 0"),
    "no taps": (lambda: square_head.square_head(Outputs(Z, F), TOLD), ConfigError, "0 taps"),
    "shapes of taps": (lambda: square_head.square_head(Outputs(Z, F, (F[:, :2],)), TOLD),
                       ConfigError, "taps 0 are"),
    "classes": (lambda: soft_term(Z[:, :2], Z), ConfigError, "logits are"),
    "integer labels": (lambda: cosine.vl2v(Outputs(Z, F), TOLD._replace(labels=jnp.arange(2))),
                       ConfigError, "logits and labels"),
    "no discriminator": (lambda: adversarial.meal_v2(Outputs(Z, F), Ensemble(Z, Z)), ConfigError,
                         "needs discriminator"),
    "classes of a discriminator": (
        lambda: extras.discriminator(4).apply((), Outputs(Z, F)), ConfigError, "3 classes"),
    "S above the null space": (
        lambda: pseudo_classes.pseudo_classes(FEATURES, CLASSES, WEIGHTS, per_class=4),
        ConfigError, "at most 3"),
    "S of 0": (lambda: pseudo_classes.pseudo_classes(FEATURES, CLASSES, WEIGHTS, per_class=0),
               ConfigError, "per_class is 0"),
    "a class of few images": (
        lambda: pseudo_classes.pseudo_classes(FEATURES[:4], CLASSES[:4], WEIGHTS, per_class=2),
        DataError, "spread in 1 directions"),
    "a class of none": (
        lambda: pseudo_classes.pseudo_classes(FEATURES, 0 * CLASSES, WEIGHTS, per_class=2),
        DataError, "class 1 has no features"),
    "features of another width": (
        lambda: pseudo_classes.pseudo_classes(FEATURES[:, :4], CLASSES, WEIGHTS, per_class=2),
        ConfigError, "do not fit"),
    "a tau of 0": (
        lambda: pseudo_classes.pseudo_probabilities(
            pseudo_classes.PseudoClasses(jnp.ones((3, 2, 4)), jnp.ones((3, 4))), Z, F, tau=0.0),
        ConfigError, "tau is 0"),
    "pseudo-classes of another teacher": (
        lambda: pseudo_classes.pseudo_probabilities(
            pseudo_classes.PseudoClasses(jnp.ones((2, 2, 4)), jnp.ones((2, 4))), Z, F),
        ConfigError, "the pseudo-classes are of 2"),
    "outputs that do not fold": (lambda: fold(jnp.ones((1, 5)), 2), ConfigError, "5 outputs"),
    "variables that are not extended": (lambda: without_extra({"params": {"w": 1}}), ConfigError,
                                        "expected 'network' and 'extra'"),
    "a limit below 0": (
        lambda: rules.hardest_of(print, None, limit=-1.0), ConfigError, "limit is -1"),
    "no views": (lambda: rules.hardest_of(print, None, views=0), ConfigError, "views is 0"),
    "no teachers": (lambda: told_by.ensemble_outputs([], loss=print), ConfigError, "no teachers"),
    "a loss by name": (lambda: told_by.teacher_outputs(TEACHER, {}, loss="vkd"), ConfigError,
                       "loss is 'vkd'"),
    "a class without images": (
        lambda: told_by.class_means(TEACHER, {}, learnable()[0], np.zeros(COUNT, int), classes=2),
        DataError, "expected some of each"),
    "soft labels of class means": (
        lambda: told_by.class_means(TEACHER, {}, learnable()[0], np.ones((COUNT, 2)), classes=2),
        ConfigError, "expected class numbers"),
    "all of a range": (lambda: hard_views.affine_ranges(share=1.0), ConfigError, "share is 1.0"),
    "weights as a matrix": (
        lambda: told_by.reweighted_teacher(TEACHER, {}, jnp.ones((2, 2)), loss=print),
        ConfigError, "weights are"),
    "domains of other widths": (
        lambda: covariate_shift.domain_ratio(FEATURES, WEIGHTS), ConfigError, "expected"),
    "ratios of nothing": (lambda: covariate_shift.importance(np.zeros(3)), ConfigError,
                          "not all 0"),
    "a temperature of 0": (lambda: named(two_heads, "dual_head", temperature=0.0), ConfigError,
                           "temperature is 0"),
    "a weight below 0": (lambda: named(orthogonal, "vkd", alpha=-1.0), ConfigError, "alpha"),
}


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_what_cannot_be_is_refused_by_name(what):
    call, error, said = REFUSED[what]
    with pytest.raises(error, match=said) as caught:
        call()
    assert caught.value.fix


def test_a_student_without_the_named_head_is_refused():
    network = extended(STUDENT, extras.second_head(8, 3))
    variables = network.init(jax.random.key(0))
    with pytest.raises(ConfigError, match="no parameters 'top'"):
        rules.aligned_heads(head="top")(network, 0)(variables, None, None, None, None)
