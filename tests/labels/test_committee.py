"""A live teacher and committees of them, against plain NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.labels import Views, teacher
from dd_jax.labels.committee import ByAgreement, ByLabel, averaged, committee
from dd_jax.labels.live import look
from dd_jax.labels.losses import parse
from dd_jax.train import fit, permuted_epochs, rows_of
from dd_jax.types import DataSpec, Network, Outputs

B, K = 5, 3
SPEC = DataSpec("toy", (4, 4, 1), K, ("a", "b", "c"))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(seed, classes=K):
    """(network whose logits are x W, variables, W)."""
    w = np.random.default_rng(seed).normal(size=(16, classes)).astype(np.float32)

    def apply(variables, images, train=False):
        flat = images.reshape(len(images), -1)
        return Outputs(flat @ variables["params"]["w"], flat)

    network = Network(lambda key: {"params": {"w": jnp.asarray(w)}}, apply, f"linear{seed}")
    return network, {"params": {"w": jnp.asarray(w)}}, w


def views(count=B, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.dirichlet(np.ones(K), size=count).astype(np.float32)
    images = rng.normal(size=(count, *SPEC.shape)).astype(np.float32)
    return Views(jnp.asarray(images), jnp.asarray(labels), jnp.arange(count), jnp.int32(0), None)


def logits_of(seen, *weights):
    flat = np.asarray(seen.images, np.float64).reshape(len(seen.images), -1)
    return np.stack([flat @ w.astype(np.float64) for w in weights])


def told_by(supervision, seen):
    return supervision.targets(supervision.arrays, seen)


class Of:
    """A loss that is told what it says."""

    def __init__(self, targets):
        self.targets = targets

    def __call__(self, logits, targets):
        return jnp.zeros(len(logits))


def test_a_loss_is_told_what_it_asks_for():
    network, variables, w = linear(0)
    seen = views(37)  # more than one chunk
    z = logits_of(seen, w)[0]
    np.testing.assert_allclose(told_by(teacher(network, variables, temperature=2.0), seen),
                               softmax(z / 2), rtol=1e-4)
    np.testing.assert_allclose(told_by(teacher(network, variables, loss=Of("logits")), seen), z,
                               rtol=1e-4, atol=1e-4)
    both = told_by(teacher(network, variables, loss=Of("logits and classes")), seen)
    np.testing.assert_allclose(both.logits, z, rtol=1e-4, atol=1e-4)
    assert both.labels.tolist() == jnp.argmax(seen.labels, axis=1).tolist()


@pytest.mark.parametrize("build,message", [
    (lambda *a: teacher(*a, loss=Of("outputs")), "takes outputs, and a teacher's words are"),
    (lambda *a: teacher(*a, loss=Of("logits"), temperature=2.0), "temperature is 2.0 beside"),
    (lambda *a: teacher(*a, mode="eval"), "valid are: batch, running"),
    (lambda *a: teacher(*a, temperature=0.0), "temperature is 0"),
    (lambda *a: committee([]), "no members"),
    (lambda *a: committee(a), "a member is a"),
    (lambda *a: committee(3), "members is 3"),
    (lambda *a: committee([a], weights=(1, 2)), r"weights are \[1.0, 2.0\], expected 1 numbers"),
    (lambda *a: committee([a], weights=(-1,)), "weights are"),
    (lambda *a: committee([a], weights=(0.0,)), "not all 0"),
    (lambda *a: committee([a], average="mean"), "unknown average"),
    (lambda *a: committee([a], mode="train"), "mode of a teacher"),
    (lambda *a: committee([a], temperature=-1), "temperature is -1"),
    (lambda *a: committee([a], loss=Of("classes")), "takes class numbers"),
    (lambda *a: committee([a], loss="kl"), "loss is 'kl'"),
    (lambda *a: ByLabel(0.0), "temperature is 0"), (lambda *a: ByAgreement(-1.0), "temperature"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_what_cannot_teach_is_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build(*linear(0)[:2])


def test_teachers_of_other_classes_are_refused():
    told = committee([linear(0)[:2], linear(1, classes=4)[:2]])
    with pytest.raises(ConfigError, match=r"\[3, 4\] classes"):
        told_by(told, views())


@pytest.mark.parametrize("weights", [None, (3.0, 1.0, 0.0)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_the_mean_of_a_committee(average, temperature, weights):
    members, seen = [linear(seed) for seed in range(3)], views(19)
    z = logits_of(seen, *(w for *_, w in members))
    share = np.full(3, 1 / 3) if weights is None else np.array([0.75, 0.25, 0.0])
    if average == "probabilities":
        expected = np.einsum("m,mbk->bk", share, softmax(z / temperature))
    else:
        expected = softmax(np.einsum("m,mbk->bk", share, z) / temperature)
    options = dict(weights=weights, temperature=temperature, average=average)
    pairs = [member[:2] for member in members]
    told = committee(pairs, **options)
    np.testing.assert_allclose(told_by(told, seen), expected, rtol=1e-4, atol=1e-6)
    # Logits of it have the same probabilities at that temperature.
    logits = told_by(committee(pairs, loss=Of("logits"), **options), seen)
    np.testing.assert_allclose(softmax(np.asarray(logits, np.float64) / temperature), expected,
                               rtol=1e-4, atol=1e-6)
    both = told_by(committee(pairs, loss=Of("logits and probabilities"), **options), seen)
    temperature = options.get("temperature", 1.0)
    np.testing.assert_allclose(jax.nn.softmax(both.logits / temperature), expected, rtol=1e-4,
                               atol=1e-6)
    assert both.labels is seen.labels


def test_one_member_is_a_teacher():
    network, variables, _ = linear(0)
    seen = views()
    for loss in (Of("logits"), Of("probabilities")):
        alone, of_one = (told_by(x, seen) for x in (
            teacher(network, variables, loss=loss), committee([(network, variables)], loss=loss)))
        # Logits of a committee are those of its probabilities: up to a constant.
        np.testing.assert_allclose(jax.nn.softmax(of_one) if loss.targets == "logits" else of_one,
                                   jax.nn.softmax(alone) if loss.targets == "logits" else alone,
                                   rtol=1e-5)


def test_weights_by_image():
    members, seen = [linear(seed) for seed in range(3)], views()
    z, y = logits_of(seen, *(w for *_, w in members)), np.asarray(seen.labels, np.float64)
    known = np.array([[y[b] @ np.log(softmax(z[m, b])) for m in range(3)] for b in range(B)])
    mean = softmax(z).mean(0)
    alike = np.array([[softmax(z[m, b]) @ mean[b] / np.linalg.norm(softmax(z[m, b]))
                       / np.linalg.norm(mean[b]) for m in range(3)] for b in range(B)])
    for weigh, scores in ((ByLabel(0.5), known / 0.5), (ByAgreement(0.2), alike / 0.2)):
        share = softmax(scores)
        expected = np.einsum("bm,mbk->bk", share, softmax(z))
        told = committee([member[:2] for member in members], weights=weigh)
        np.testing.assert_allclose(told_by(told, seen), expected, rtol=1e-4, atol=1e-6)
    classes = seen._replace(labels=jnp.argmax(seen.labels, axis=1))
    hard = seen._replace(labels=jax.nn.one_hot(classes.labels, K))
    told = committee([member[:2] for member in members], weights=ByLabel())
    np.testing.assert_allclose(told_by(told, classes), told_by(told, hard), rtol=1e-6)


def test_extreme_logits_stay_finite():
    z = jnp.asarray([[[80.0, -80.0, 0.0]], [[-80.0, 80.0, 0.0]]])
    for weights in (jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5])):
        for average in ("probabilities", "logits"):
            assert np.isfinite(averaged(z, weights, average)).all()
    told = averaged(z, jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(jax.nn.softmax(told), [[0.5, 0.5, 0.0]], atol=1e-6)


def test_statistics_of_the_batch_or_running_ones():
    network = nets.convnet(SPEC, depth=1, width=2, norm="batch")
    variables = network.init(jax.random.key(0))
    images = 3 + 2 * views(33).images
    running, batch = (look(network, variables, images, mode=mode) for mode in ("running", "batch"))
    np.testing.assert_allclose(running, network.apply(variables, images).logits, rtol=1e-4,
                               atol=1e-5)
    np.testing.assert_allclose(batch, network.apply(variables, images, True).logits, rtol=1e-4,
                               atol=1e-5)
    assert not np.allclose(running, batch, rtol=0.05)
    seen = views(33)._replace(images=images)
    told = told_by(teacher(network, variables, mode="batch", loss=Of("logits")), seen)
    np.testing.assert_allclose(told, batch, rtol=1e-5, atol=1e-6)
    both = committee(2 * [(network, variables)], mode="batch", average="logits", loss=Of("logits"))
    np.testing.assert_allclose(told_by(both, seen), batch, rtol=1e-5, atol=1e-6)


def test_a_student_follows_a_committee():
    """By T^2 KL a linear student comes to the mean of its linear teachers' logits."""
    members, seen = [linear(seed) for seed in range(2)], views(64)
    student, start, _ = linear(7)
    told = committee([member[:2] for member in members], average="logits", loss=parse("kl@2"))

    @jax.jit
    def run(told):
        return fit(student, start, take=rows_of(seen.images, seen.labels),
                   batches=permuted_epochs(64, 64, 400), key=jax.random.key(0),
                   optimizer=optax.adam(0.03), supervision=told).variables

    w = np.asarray(run(told)["params"]["w"])
    wanted = (members[0][2] + members[1][2]) / 2
    centred = [x - x.mean(1, keepdims=True) for x in (w, wanted)]
    np.testing.assert_allclose(*centred, atol=0.05)
