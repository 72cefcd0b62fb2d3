"""Student and teacher that learn together, against NumPy and float64 differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.data import normalise, standardise
from dd_jax.errors import ConfigError
from dd_jax.labels.online import bidirectional, online, pair, part_of
from dd_jax.train import fit, permuted_epochs, rows_of
from tests.labels.test_committee import softmax
from tests.laws import members


def by_numpy(s, t, y, delta, temperature, fixed=None):
    """(student's losses, teacher's), with what is constant taken from `fixed` logits (s, t)."""
    p, q = softmax(s / temperature), softmax(t / temperature)
    fixed_p, fixed_q = (softmax(z / temperature) for z in (fixed or (s, t)))
    entropy = [-(x * np.log(x)).sum(1) for x in (fixed_p, fixed_q)]
    flat = entropy[0] > entropy[1]
    a, b = np.where(flat, 1, delta), np.where(flat, delta, 1)

    def kl(x, z):
        return (x * np.log(x / z)).sum(1)

    own = [-(y * np.log(softmax(z))).sum(1) for z in (s, t)]
    return (own[0] + temperature**2 * (a * kl(fixed_q, p) + b * kl(p, fixed_q)),
            own[1] + temperature**2 * kl(q, fixed_p))


@pytest.mark.parametrize("classes", [2, 100])
@pytest.mark.parametrize("delta,temperature", [(2.0, 1.0), (3.0, 4.0)])
def test_losses_and_gradients(classes, delta, temperature):
    rng = np.random.default_rng(0)
    s, t = 2 * rng.normal(size=(2, 6, classes))
    y = rng.dirichlet(np.ones(classes), size=6)
    with jax.enable_x64(True):
        def losses(s, t):
            return bidirectional(s, t, jnp.asarray(y), delta=delta, temperature=temperature)

        for ours, theirs in zip(losses(jnp.asarray(s), jnp.asarray(t)),
                                by_numpy(s, t, y, delta, temperature), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10)
        slopes = jax.grad(lambda pair: sum(loss.sum() for loss in losses(*pair)))(
            (jnp.asarray(s), jnp.asarray(t)))
    for place in [(0, 0), (3, 1), (5, classes - 1)]:
        step = np.zeros_like(s)
        step[place] = 1e-5
        for which, moved in enumerate(([step, 0], [0, step])):
            ends = [by_numpy(s + way * moved[0], t + way * moved[1], y, delta, temperature,
                             fixed=(s, t))[which].sum() for way in (1, -1)]
            np.testing.assert_allclose(slopes[which][place], (ends[0] - ends[1]) / 2e-5, rtol=1e-5,
                                       atol=1e-8)


def test_both_directions_are_used_and_extremes_are_finite():
    rng = np.random.default_rng(1)
    s, t = rng.normal(size=(2, 40, 3))
    entropy = [-(p * np.log(p)).sum(1) for p in (softmax(s), softmax(t))]
    assert 5 < (entropy[0] > entropy[1]).sum() < 35
    far = jnp.asarray([[80.0, -80.0, 0.0]])
    slope = jax.grad(lambda z: sum(x.sum() for x in bidirectional(z, -z, jnp.eye(3)[:1])))(far)
    assert np.isfinite(slope).all()


def test_a_pair_learns_together(toy):
    student, teacher = nets.mlp(members.SPEC, width=4), nets.convnet(
        members.SPEC, depth=1, width=2, norm="batch")
    both = pair(student, teacher)
    images = normalise(standardise(toy), toy.images)
    labels = jax.nn.one_hot(toy.labels, 2)

    @jax.jit
    def run(key):
        start = both.init(key)
        return start, fit(both, start, take=rows_of(images, labels), key=key,
                          batches=permuted_epochs(64, 16, 15), optimizer=optax.adam(0.02),
                          gradient=online(temperature=2.0)).variables

    start, end = run(jax.random.key(0))
    assert set(part_of(start, "student")) == {"params"}
    for name, network in (("student", student), ("teacher", teacher)):
        right = np.argmax(network.apply(part_of(end, name), images).logits, 1) == toy.labels
        assert right.mean() > 0.95
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start, end)
    assert all(jax.tree.leaves(moved["batch_stats"]["teacher"]))
    alone = teacher.init(jax.random.fold_in(jax.random.key(0), 1))
    for a, b in zip(jax.tree.leaves(part_of(start, "teacher")["params"]),
                    jax.tree.leaves(alone["params"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [dict(delta=0.0), dict(temperature=-1.0)], ids=str)
def test_numbers_that_cannot_be_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        online(**changes)
