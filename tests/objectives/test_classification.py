"""Cross-entropy of a synthetic set under networks of a pool, whole and class by class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.distill import outer
from dd_jax.errors import ConfigError
from dd_jax.objectives.class_by_class import class_by_class
from dd_jax.objectives.classification import classification
from dd_jax.pools.bank import bank_pool
from dd_jax.types import Augmentation, SyntheticSet
from tests.laws import members

NETWORK = nets.mlp(members.SPEC, width=32, depth=2)
KEY = jax.random.key(4)


def pool():
    """Two networks without a difference between their ends."""
    ends = jax.vmap(NETWORK.init)(jax.random.split(jax.random.key(0), 2))
    return bank_pool((ends, ends))


def synthetic_set(per_class=3):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2 * per_class, *members.SHAPE)).astype(np.float32)
    labels = rng.dirichlet(np.ones(2), size=2 * per_class).astype(np.float32)
    return SyntheticSet(jnp.asarray(images), jnp.asarray(labels))


def started(objective, synthetic):
    data = members.toy_data()
    state = objective.init(jax.random.key(1), synthetic)
    return state, outer.fetch(data, objective.sample(data, state, KEY))


def wanted(state, synthetic, rows):
    """-sum_c mean_s y log p, over the images `rows` [K, n]."""
    variables = jax.tree.map(lambda x: x[state.current], state.trained)
    logits = np.asarray(NETWORK.apply(variables, synthetic.images).logits, np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    each = -(np.asarray(synthetic.labels) * logs).sum(-1)
    return sum(each[row].mean() for row in rows)


def test_the_sum_over_classes_of_the_mean_cross_entropy():
    synthetic = synthetic_set()
    objective = classification(NETWORK, pool())
    state, batch = started(objective, synthetic)
    value, metrics = jax.jit(objective.loss)(synthetic, state, batch, KEY)
    assert float(value) == pytest.approx(wanted(state, synthetic, [[0, 1, 2], [3, 4, 5]]), rel=1e-5)
    assert metrics == {}


def test_classes_in_turn_have_the_parts_of_the_whole_and_leave_the_others_alone():
    synthetic = synthetic_set()
    objective = class_by_class(classification(NETWORK, pool()))
    state, batch = started(objective, synthetic)
    both = jax.jit(jax.value_and_grad(
        lambda images, state: objective.loss(synthetic._replace(images=images), state, batch, KEY),
        has_aux=True))
    for turn, rows in enumerate(([0, 1, 2], [3, 4, 5])):
        (value, _), gradient = both(synthetic.images, state._replace(turn=jnp.int32(turn)))
        assert float(value) == pytest.approx(wanted(state.inner, synthetic, [rows]), rel=1e-5)
        touched = np.flatnonzero(np.any(np.asarray(gradient) != 0, axis=(1, 2, 3)))
        assert touched.tolist() == rows


def test_one_draw_for_each_class_and_a_random_choice_of_many_images():
    def apply(params, images):
        assert params.shape == (1,)
        return jnp.where(params[0] > 0, images, -images) + 0 * images

    signs = Augmentation(lambda key, count: jax.random.normal(key, (count,)), apply)
    synthetic = synthetic_set()
    objective = classification(NETWORK, pool(), augmentation=signs, most=1)
    state, batch = started(objective, synthetic)
    loss = jax.jit(lambda key: objective.loss(synthetic, state, batch, key)[0])
    seen = {round(float(loss(jax.random.key(i))), 4) for i in range(60)}
    possible = {
        round(float(wanted(state, synthetic._replace(images=images), [[i], [3 + j]])), 4)
        for first in (1, -1) for second in (1, -1) for i in range(3) for j in range(3)
        for images in [synthetic.images * np.repeat([first, second], 3)[:, None, None, None]]
    }
    assert len(possible) == 36 and len(seen) > 20
    assert all(min(abs(s - p) for p in possible) < 3e-4 for s in seen)


def test_the_pool_moves_on_and_is_what_embeds():
    synthetic = synthetic_set()
    objective = classification(NETWORK, pool())
    state, batch = started(objective, synthetic)
    after = objective.advance(synthetic, state, batch, KEY)
    assert float(after.share) != float(state.share)
    features = objective.embed(state, synthetic.images, KEY)
    variables = jax.tree.map(lambda x: x[state.current], state.trained)
    np.testing.assert_allclose(features, NETWORK.apply(variables, synthetic.images).features,
                               rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [dict(most=0), dict(classes="all")], ids=["most", "classes"])
def test_settings_that_cannot_be_are_refused(changes):
    with pytest.raises(ConfigError):
        classification(NETWORK, pool(), **changes)
