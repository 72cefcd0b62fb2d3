"""Labels and a teacher together: the loss, its gradient, its targets, and how much the teacher."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.train import Views, cross_entropy, teacher
from dd_jax.train.with_teacher import Scaled, Told, teacher_and_labels, teacher_share
from tests.laws import members

NETWORK = nets.mlp(members.SPEC, width=4)


def by(**options):
    return teacher_and_labels(NETWORK, NETWORK.init(jax.random.key(0)), **options)


def slow(student, labels, teacher, share, temperature):
    """The loss of one image in float64, sum by sum."""
    def softmax(values):
        weights = [np.exp(float(v) - max(values)) for v in values]
        return [w / sum(weights) for w in weights]

    own = -sum(t * np.log(p) for t, p in zip(labels, softmax(student)))
    p, q = (softmax([v / temperature for v in values]) for values in (teacher, student))
    apart = sum(a * np.log(a / b) for a, b in zip(p, q))
    return (1 - share) * own + share * temperature**2 * apart


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_loss_is_that_of_a_plain_sum(share, temperature):
    rng = np.random.default_rng(0)
    student, said = rng.normal(0, 3, (2, 6, 5))
    labels = rng.dirichlet(np.ones(5), 6)
    loss = by(share=share, temperature=temperature).loss
    found = loss(jnp.float32(student), Told(jnp.float32(labels), jnp.float32(said)))
    wanted = [slow(*row, share, temperature) for row in zip(student, labels, said)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_its_gradient_is_that_of_differences():
    rng = np.random.default_rng(1)
    student, said = rng.normal(size=(2, 5))
    labels = np.eye(5)[2]
    loss = by(share=0.6, temperature=3.0).loss
    told = Told(jnp.float32(labels)[None], jnp.float32(said)[None])
    found = jax.grad(lambda z: loss(z[None], told)[0])(jnp.float32(student))
    steps = 1e-5 * np.eye(5)
    wanted = [(slow(student + step, labels, said, 0.6, 3.0)
               - slow(student - step, labels, said, 0.6, 3.0)) / 2e-5 for step in steps]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_logits_of_a_sure_teacher_are_finite():
    told = Told(jnp.eye(3), 1e4 * jnp.eye(3))
    loss = by(share=0.5, temperature=1.0).loss
    assert np.isfinite(loss(-1e4 * jnp.eye(3), told)).all()
    assert np.isfinite(jax.grad(lambda z: loss(z, told).sum())(jnp.zeros((3, 3)))).all()


def test_the_teacher_looks_at_the_views_and_labels_are_those_of_the_views():
    told = by(share=0.5)
    images = jax.random.normal(jax.random.key(1), (6, *members.SPEC.shape))
    labels = jnp.full((6, 2), 0.5)  # mixed
    found = told.targets(told.arrays, Views(images, labels, None, None, None))
    np.testing.assert_allclose(found.logits, NETWORK.apply(told.arrays, images).logits, rtol=1e-5)
    assert found.labels is labels


def test_the_teacher_alone_has_the_gradient_of_the_supervision_by_a_teacher():
    """KL and cross-entropy differ by a constant of the student."""
    variables = NETWORK.init(jax.random.key(0))
    alone = teacher(NETWORK, variables, temperature=4.0, loss=Scaled(cross_entropy, 16.0))
    both = by(share=1.0, temperature=4.0)
    images = jax.random.normal(jax.random.key(1), (5, *members.SPEC.shape))
    views = Views(images, jnp.eye(2)[jnp.array([0, 1, 0, 1, 1])], None, None, None)
    student = jax.random.normal(jax.random.key(2), (5, 2))

    def gradient(told):
        targets = told.targets(told.arrays, views)
        return jax.grad(lambda z: told.loss(z, targets).sum())(student)

    np.testing.assert_allclose(gradient(alone), gradient(both), rtol=1e-4, atol=1e-6)


def test_supervisions_share_a_program():
    one, other = by(share=0.5), teacher_and_labels(NETWORK, NETWORK.init(jax.random.key(3)),
                                                   share=0.5)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert jax.tree.structure(one) != jax.tree.structure(by(share=0.6))


def test_how_much_the_teacher_counts():
    assert teacher_share(0.3, 50) == 1.0 and teacher_share(1.0, 10) == 1.0
    shares = [teacher_share(kept, 6000 * kept) for kept in (0.02, 0.1, 0.3, 0.6, 1.0)]
    np.testing.assert_allclose(shares, [0.9, 0.9, 0.9 - 0.4 * 2 / 9, 0.9 - 0.4 * 5 / 9, 0.5])


@pytest.mark.parametrize("call,said", [
    (lambda: by(share=1.5), "share is 1.5"),
    (lambda: by(share=0.5, temperature=0.0), "temperature is 0"),
    (lambda: teacher_share(0.0, 10), "kept is 0"), (lambda: teacher_share(1.1, 10), "kept is 1.1"),
    (lambda: teacher_share(0.5, 0.0), "per_class is 0"),
])
def test_what_cannot_be(call, said):
    with pytest.raises(ConfigError, match=said):
        call()
