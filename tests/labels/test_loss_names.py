"""Losses by name, what does not fit is refused before anything compiles, and training with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError, DataError
from dd_jax.evaluate.settings import PROTOCOL_LOSSES
from dd_jax.labels import Views, teacher
from dd_jax.labels.losses import (
    LOSSES,
    Entry,
    Taught,
    cross_entropy,
    losses_for,
    named,
    parse,
    require_labels,
    require_targets,
    weighted_sum,
)
from dd_jax.labels.losses.ferkd import Judged, calibrate
from dd_jax.labels.losses.mst import Committee
from dd_jax.labels.losses.record import make
from dd_jax.labels.losses.table import OF_MORE
from dd_jax.train import fit, permuted_epochs, rows_of
from dd_jax.train.supervised import measured_gradient
from tests.laws import members

NETWORK = nets.mlp(members.SPEC, width=8, depth=2)
ZEROS, SOFT, CLASSES = jnp.zeros((2, 3)), jnp.full((2, 3), 1 / 3), jnp.array([0, 2])


@pytest.mark.parametrize("text, name, options", [
    ("kl", "kl", {}),
    ("kl@4", "kl", {"temperature": 4.0}),
    ("kl@1.5,rescale=no", "kl", {"temperature": 1.5, "rescale": False}),
    ("js@temperature=2,share=0.5", "js", {"share": 0.5, "temperature": 2.0}),
    ("sinkhorn@2,rounds=5,unrolled=False", "sinkhorn",
     {"temperature": 2.0, "rounds": 5, "unrolled": False}),
    ("integer_cross_entropy", "integer_cross_entropy", {}),
])
def test_a_written_loss_is_the_named_one(text, name, options):
    assert parse(text) == named(name, **options)
    assert hash(parse(text)) == hash(named(name, **options))


def test_equal_losses_share_a_program_and_others_do_not():
    traces = []

    def run(loss, z):
        traces.append(loss)
        return loss(z, ZEROS)

    compiled = jax.jit(run, static_argnums=0)
    for loss in (named("kl", temperature=2), parse("kl@2"), named("kl", temperature=np.float32(2))):
        compiled(loss, ZEROS)
    compiled(named("kl", temperature=3), ZEROS)
    assert len(traces) == 2


def test_every_entry_is_whole_and_of_logits_as_it_says():
    for name, entry in LOSSES.items():
        loss = named(name)
        assert (loss.of, loss.whole, loss.targets) == (entry.of, entry.whole, entry.targets)
        assert entry.source or entry.targets in ("probabilities", "free", "classes")
        assert loss.of == "logits" or name in OF_MORE
    whole = {name for name, entry in LOSSES.items() if entry.whole}
    assert whole == {"sinkhorn", "luminet", "dist", "class_relation", "augmix",
                     "square_head"}


@pytest.mark.parametrize("call, said", [
    (lambda: named("lk"), "unknown loss 'lk'"),
    (lambda: named(4), "unknown loss"),
    (lambda: parse("lk@4"), "unknown loss 'lk'"),
    (lambda: parse("kl@"), "expected a number"),
    (lambda: parse("kl@warm"), "'warm', expected a number"),
    (lambda: parse("kl@4,2"), "expected OPTION=VALUE.*write kl@temperature=4.0,rescale=yes"),
    (lambda: parse("kl@4,temperature=3"), "temperature twice"),
    (lambda: parse("kl@heat=3"), "unknown option of the loss 'kl' 'heat'"),
    (lambda: parse("kl@rescale=maybe"), "expected yes or no"),
    (lambda: parse("kl@-1"), "temperature is -1.0"),
    (lambda: parse("kl@nan"), "temperature is nan"),
    (lambda: parse("sinkhorn@rounds=2.5"), "expected a number"),
    (lambda: parse("cross_entropy@4"), "'cross_entropy' has no options"),
    (lambda: named("kl", heat=4), "unknown option of the loss 'kl' 'heat'"),
    (lambda: named("cross_entropy", temperature=4), "'cross_entropy' has no options"),
    (lambda: named("kl", temperature=0), "temperature is 0.*logits are divided by it"),
    (lambda: named("kl", temperature="4"), "temperature is '4'"),
    (lambda: named("kl", temperature=True), "temperature is True"),
    (lambda: named("kl", rescale=1), "rescale is 1, expected True or False"),
    (lambda: named("js", share=1.5), "share is 1.5, expected a probability"),
    (lambda: named("skew_kl", skew=1.0), "nothing would be left of the student"),
    (lambda: named("alpha_beta", alpha=-1.0), "alpha is -1.0"),
    (lambda: named("ofa", exponent=0.5), "exponent is 0.5, expected at least 1"),
    (lambda: named("sinkhorn", epsilon=0.0), "epsilon is 0"),
    (lambda: named("mst", teachers=0), "teachers is 0"),
    (lambda: named("swing", low=0.0), "low is 0"),
    (lambda: named("class_relation", head_temperature=0.0), "head_temperature is 0"),
])
def test_names_and_options_that_cannot_be(call, said):
    with pytest.raises(ConfigError, match=said):
        call()


@pytest.mark.parametrize("call, said", [
    *((lambda name=name: LOSSES[name].function(ZEROS, ZEROS, temperature=0.0), "temperature is 0")
      for name, entry in LOSSES.items()
      if entry.targets == "logits" and "temperature" in entry.options),
    (lambda: named("kl")(ZEROS, jnp.zeros((2, 4))), r"\(2, 3\).*\(2, 4\).*equal shapes"),
    (lambda: named("uld")(ZEROS, jnp.zeros((3, 3))), r"expected \[B, K\] and \[B, L\]"),
    (lambda: named("dkd")(ZEROS, Taught(ZEROS, SOFT)), "takes class numbers.*'kl'"),
    (lambda: named("pld")(ZEROS, Taught(ZEROS, SOFT[:, 0])), "takes class numbers"),
    (lambda: named("ldr")(ZEROS, SOFT), "takes class numbers"),
    (lambda: named("ofa")(ZEROS, Taught(ZEROS, jnp.array([0]))), "takes class numbers"),
    (lambda: named("mixup_kd")(ZEROS, Taught(ZEROS, CLASSES)), "equal shapes"),
    (lambda: named("ferkd")(ZEROS, Judged(SOFT, SOFT)), "takes class numbers"),
    (lambda: calibrate(SOFT, CLASSES, low=0.9), "expected them in order"),
    (lambda: named("class_relation")(ZEROS, jnp.zeros((2, 4))), "teacher knows 4 classes"),
    (lambda: named("mst", teachers=3)(ZEROS, Committee(jnp.zeros((2, 2, 3)), jnp.zeros((2, 2)))),
     "teachers is 3, expected 1 to 2"),
    (lambda: named("mst")(ZEROS, Committee(jnp.zeros((2, 3)), jnp.zeros((2, 2)))), "committee"),
    (lambda: named("augmix")(ZEROS, SOFT), "2 rows cannot hold 3 views"),
])
def test_targets_that_do_not_fit_are_refused_where_a_loss_is_traced(call, said):
    with pytest.raises(ConfigError, match=said):
        jax.eval_shape(call)


@pytest.mark.parametrize("name, found", [
    ("integer_cross_entropy", "probabilities"), ("ldr", "one_hot"), ("cross_entropy", "classes"),
    ("cross_entropy", "centred"), ("kl", "one_hot"), ("dkd", "logits"), ("ferkd", "logits")])
def test_losses_of_other_labels_name_those_that_fit(name, found):
    with pytest.raises(ConfigError, match=f"'{name}' takes .*losses that fit: ") as refused:
        require_targets(named(name), found)
    assert all(word in refused.value.fix for word in losses_for(found))


def test_losses_that_fit_are_let_through():
    for name, found in (("kl", "logits"), ("squared_error", "centred"),
                        ("cross_entropy", "one_hot"), ("ldr", "classes")):
        require_targets(named(name), found)
    require_targets(cross_entropy, "anything")  # a plain function is not asked
    assert "kl" in losses_for("logits") and "squared_error" in losses_for("logits")


@pytest.mark.parametrize("labels, kind, said", [
    ([[0.5, 0.5], [0.5, 0.4]], "probabilities", "row 1 .* its sum is 0.9"),
    ([[1.5, -0.5]], "probabilities", "row 0"),
    ([[np.nan, 1.0]], "probabilities", "row 0"),
    ([[1.0, 0.0], [0.6, 0.4]], "one_hot", "row 1 .* not one-hot: its largest is 0.6"),
    ([0, 2], "classes", "row 1 .* is 2, expected a class below 2"),
    ([-1, 0], "classes", "row 0"),
])
def test_labels_that_are_not_of_their_kind(labels, kind, said):
    with pytest.raises(DataError, match=said):
        require_labels(np.array(labels), kind, classes=2)


def test_labels_of_their_kind_are_let_through():
    require_labels(np.array([[0.5, 0.5]], np.float16), "probabilities", classes=2)
    require_labels(np.eye(2), "one_hot", classes=2)
    require_labels(np.array([0, 1]), "classes", classes=2)
    require_labels(np.array([[3.0, -7.0]]), "logits", classes=2)


def test_a_sum_tells_each_loss_what_it_takes():
    rng = np.random.default_rng(0)
    s, t = jnp.asarray(rng.normal(size=(2, 4, 3)), jnp.float32)
    classes = jnp.array([0, 1, 2, 1])
    hard, soft = Taught(t, classes), Taught(t, jax.nn.softmax(2 * s))
    for text, told, wanted in [
            ("integer_cross_entropy+1.5*uld", hard,
             named("integer_cross_entropy")(s, classes) + 1.5 * named("uld")(s, t)),
            ("0.1*cross_entropy+0.9*kl@2+0.5*luminet", soft,
             0.1 * cross_entropy(s, soft.labels) + 0.9 * named("kl", temperature=2.0)(s, t)
             + 0.5 * named("luminet")(s, t)),
            ("pld+2*kl", hard, named("pld")(s, hard) + 2 * named("kl")(s, t)),
            ("2*kl", t, 2 * named("kl")(s, t)),
            ("kl+tvd", t, named("kl")(s, t) + named("tvd")(s, t))]:
        loss = parse(text)
        assert loss.whole == ("luminet" in text) and hash(loss) == hash(parse(text))
        np.testing.assert_allclose(loss(s, told), wanted, rtol=1e-5)
    variables, seen = NETWORK.init(jax.random.key(0)), views(jnp.array([1, 0, 1, 1]))
    given = teacher(NETWORK, variables, loss=parse("integer_cross_entropy+1.5*uld"))
    assert given.targets(given.arrays, seen).labels.tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("call, said", [
    (lambda: weighted_sum(), "a sum of no losses"),
    (lambda: weighted_sum((0.0, named("kl"))), "weight is 0"),
    (lambda: weighted_sum((1.0, cross_entropy)), "expected one of losses.named"),
    (lambda: parse("ldr+cross_entropy+kl"), "told different things: ldr takes class numbers"),
    (lambda: parse("kl+taid"), "told different things"),
    (lambda: parse("x*kl"), "'x', expected a number"),
    (lambda: parse("kl+"), "unknown loss ''"),
    (lambda: parse("0.5*lk+kl"), "unknown loss 'lk'"),
])
def test_sums_that_cannot_be(call, said):
    with pytest.raises(ConfigError, match=said):
        call()


def test_protocols_keep_their_old_names():
    assert set(PROTOCOL_LOSSES) == {"auto", "free_cross_entropy", "cross_entropy",
                                    "integer_cross_entropy", "squared_error", "mean_squared_error"}
    for name, loss in PROTOCOL_LOSSES.items():
        assert loss is None or loss is LOSSES[name].function


def views(labels):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, *members.SHAPE)), jnp.float32)
    return Views(images, labels, None, None, None)


def test_a_teacher_says_what_the_loss_takes():
    variables = NETWORK.init(jax.random.key(0))
    labels = jnp.array([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0], [0.4, 0.6]])
    seen = views(labels)
    logits = NETWORK.apply(variables, seen.images).logits

    def told(loss, labels=labels, **options):
        given = teacher(NETWORK, variables, loss=loss, **options)
        return given.targets(given.arrays, seen._replace(labels=labels))

    close = dict(rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(told(cross_entropy), jax.nn.softmax(logits), **close)
    np.testing.assert_allclose(told(named("kl")), logits, **close)
    for given, wanted in ((labels, [0, 1, 0, 1]), (jnp.array([1, 1, 0, 0]), [1, 1, 0, 0])):
        both = told(named("dkd"), given)
        np.testing.assert_allclose(both.logits, logits, **close)
        assert both.labels.tolist() == wanted
    np.testing.assert_array_equal(told(named("mixup_kd")).labels, labels)
    assert teacher(NETWORK, variables, loss=named("dist")).loss.whole
    cases = [("kl", 4.0, "temperature is 4.0.*losses.named"), ("ferkd", 1.0, "losses that fit"),
             ("ldr", 1.0, "takes class numbers.*losses that fit")]
    for name, temperature, said in cases:
        with pytest.raises(ConfigError, match=said):
            told(named(name), temperature=temperature)


def test_a_loss_may_see_all_outputs():
    def of_features(outputs, targets, by):
        return by * jnp.sum(outputs.features, axis=-1)

    loss = make("features", Entry(of_features, of="outputs", options={"by": 2.0}), {})
    variables, seen = NETWORK.init(jax.random.key(0)), views(jnp.eye(2)[jnp.array([0, 1, 0, 1])])
    found = measured_gradient(NETWORK, variables, seen.images, seen.labels, loss=loss, chunk=3)[0]
    wanted = jax.grad(lambda params: 2 * jnp.mean(jnp.sum(
        NETWORK.apply({"params": params}, seen.images).features, axis=1)))(variables["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)


@pytest.mark.parametrize("name", ["kl", "dkd", "luminet"])
def test_a_student_comes_nearer_to_its_teacher(name):
    """Eight images, of which the last batch of an epoch is filled up."""
    images = jnp.asarray(np.random.default_rng(0).normal(size=(8, *members.SHAPE)), jnp.float32)
    labels = jnp.eye(2)[jnp.arange(8) % 2]
    master = NETWORK.init(jax.random.key(1))
    student = NETWORK.init(jax.random.key(2))
    loss = named(name)
    trained = fit(NETWORK, student, take=rows_of(images, labels),
                  batches=permuted_epochs(8, 3, 40), optimizer=optax.adam(1e-2),
                  key=jax.random.key(3), supervision=teacher(NETWORK, master, loss=loss)).variables

    def apart(variables):
        logits, theirs = (NETWORK.apply(v, images).logits for v in (variables, master))
        told = Taught(theirs, labels.argmax(axis=1)) if name == "dkd" else theirs
        return loss(logits, told).mean()

    assert apart(trained) < 0.3 * apart(student)
