"""Labels and a teacher, weighed by the share of the data that is left."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.labels.losses import Taught
from dd_jax.labels.pruned import alpha_of, labels_and_teacher, pruned_data
from tests.labels.test_committee import linear, logits_of, softmax, views


def by_numpy(z, y, t, alpha, temperature):
    own = -(y * np.log(softmax(z))).sum(1)
    p, q = softmax(t / temperature), softmax(z / temperature)
    return (1 - alpha) * own + alpha * temperature**2 * (p * (np.log(p) - np.log(q))).sum(1)


@pytest.mark.parametrize("classes", [2, 100])
@pytest.mark.parametrize("alpha,temperature", [(0.3, 4.0), (0.7, 1.0), (0.5, 20.0)])
def test_it_is_its_formula_and_so_is_its_gradient(classes, alpha, temperature):
    rng = np.random.default_rng(0)
    z, t = rng.normal(size=(2, 4, classes))
    y = rng.dirichlet(np.ones(classes), size=4)
    y[0] = np.eye(classes)[1]
    with jax.enable_x64(True):
        def loss(z):
            return labels_and_teacher(alpha, temperature)(z, Taught(jnp.asarray(t), jnp.asarray(y)))

        np.testing.assert_allclose(loss(jnp.asarray(z)), by_numpy(z, y, t, alpha, temperature),
                                   rtol=1e-10)
        slope = np.asarray(jax.grad(lambda z: loss(z).sum())(jnp.asarray(z)))
    for place in [(0, 0), (1, 1), (3, classes - 1)]:
        step = np.zeros_like(z)
        step[place] = 1e-5
        ends = [by_numpy(z + way * step, y, t, alpha, temperature).sum() for way in (1, -1)]
        np.testing.assert_allclose(slope[place], (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-9)


def test_the_teacher_counts_more_where_less_is_left():
    shares = np.linspace(0.001, 1, 50)
    alphas = [alpha_of(float(share)) for share in shares]
    assert alphas[0] == 1.0 and alphas[-1] == 0.5 and all(np.diff(alphas) <= 0)
    assert all(alpha_of(share) == 1.0 for share in (0.01, 0.1))


@pytest.mark.parametrize("share,alpha", [(0.55, None), (0.55, 1.0), (0.55, 0.0), (0.05, None)])
def test_a_student_is_told_by_views_and_teacher(share, alpha):
    network, variables, w = linear(0)
    seen, counts = views(20), alpha_of(share) if alpha is None else alpha
    told = pruned_data(network, variables, share=share, alpha=alpha, temperature=2.0)
    z = np.random.default_rng(3).normal(size=(20, 3))
    np.testing.assert_allclose(
        told.loss(jnp.asarray(z, jnp.float32), told.targets(told.arrays, seen)),
        by_numpy(z, np.asarray(seen.labels, np.float64), logits_of(seen, w)[0], counts, 2.0),
        rtol=1e-3, atol=1e-4)


def test_class_numbers_are_refused_where_labels_count():
    told = pruned_data(*linear(0)[:2], share=0.55)
    seen = views(20)._replace(labels=jnp.zeros(20, jnp.int32))
    with pytest.raises(ConfigError):
        told.loss(jnp.zeros((20, 3)), told.targets(told.arrays, seen))


def test_supervisions_share_a_program():
    network, *_ = linear(0)
    one, other = (pruned_data(network, linear(seed)[1], share=0.5) for seed in (0, 1))
    assert jax.tree.structure(one) == jax.tree.structure(other)


@pytest.mark.parametrize("changes,message", [
    (dict(share=0.0), "share is 0"), (dict(share=1.5), "share is 1.5"),
    (dict(share=0.5, alpha=2.0), "alpha is 2"), (dict(share=0.5, temperature=0.0), "temperature"),
    (dict(share=0.5, mode="x"), "mode of a teacher"),
], ids=str)
def test_numbers_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        pruned_data(*linear(0)[:2], **changes)
