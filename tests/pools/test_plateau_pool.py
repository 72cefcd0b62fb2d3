"""The plateau pool against its two loops written out in Python."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.pools.plateau import plateau_pool, resampled_accuracy
from dd_jax.types import Batch, DataSpec, SyntheticSet
from tests.objectives import reference_gradients as reference

CLASSES, RATE, MOMENTUM = 8, 0.3, 0.5
SPEC = DataSpec("eight", (4, 4, 1), CLASSES, tuple("abcdefgh"))
NETWORK = nets.mlp(SPEC, width=12, depth=2)
LIMITS = dict(window=3, still=0.2, moved=0.2, max_uses=6, max_epochs=9)
STEPS = 40


def real_batch(step=0, each=1):
    """Images of each class; with one of them, drawing with replacement changes nothing."""
    rng = np.random.default_rng(step)
    centres = np.random.default_rng(99).normal(size=(CLASSES, 1, 4, 4, 1))
    images = centres + 0.8 * rng.normal(size=(CLASSES, each, 4, 4, 1))
    labels = np.broadcast_to(np.arange(CLASSES)[:, None], (CLASSES, each))
    return Batch(jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32))


def synthetic_set():
    return SyntheticSet(real_batch(77).images[:, 0], jnp.eye(CLASSES))


def made(**changes):
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    return plateau_pool(NETWORK, optimizer=optimizer, **{**LIMITS, **changes})


def accuracy(params, real):
    images = np.asarray(real.images, np.float64).reshape(-1, 16)
    logits = (reference.hidden(params, images) @ params["head"]["kernel"]
              + params["head"]["bias"])
    return float((logits.argmax(axis=1) == np.ravel(real.labels)).mean())


def spread(window):
    return max(window) - min(window)


class TwoLoops:
    """What the paper's code does with one network after another, in Python and float64."""

    def __init__(self, params):
        self.renewals, self.endings = 0, []
        self.new(params)

    def new(self, params):
        self.params, self.uses, self.window = reference.as_float64(params), 0, []
        self.velocity = jax.tree.map(np.zeros_like, self.params)

    def epoch(self):
        synthetic = synthetic_set()
        slope = reference.gradient(self.params, synthetic.images, synthetic.labels)
        self.velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, self.velocity, slope)
        self.params = jax.tree.map(lambda p, v: p - RATE * v, self.params, self.velocity)

    def train(self, real):
        window = []
        for _ in range(LIMITS["max_epochs"]):
            self.epoch()
            window = [*window, accuracy(self.params, real)][-LIMITS["window"]:]
            if len(window) == LIMITS["window"] and spread(window) > LIMITS["moved"]:
                return "moved"
        return "max_epochs"

    def advance(self, real):
        """Whether the network is to be replaced."""
        self.uses += 1
        self.window = [*self.window, accuracy(self.params, real)][-LIMITS["window"]:]
        if len(self.window) == LIMITS["window"] and spread(self.window) < LIMITS["still"]:
            self.endings.append("still")
            return True
        if self.uses == LIMITS["max_uses"]:
            self.endings.append("max_uses")
            return True
        self.endings.append(self.train(real))
        return False


@pytest.fixture(scope="module")
def compiled():
    pool = made()
    return jax.jit(pool.init), jax.jit(pool.advance)


def test_both_loops_end_where_the_paper_ends_them(compiled):
    init, advance = compiled
    synthetic = synthetic_set()
    state = init(jax.random.key(3), synthetic)
    loops = TwoLoops(state.variables["params"])
    for step in range(STEPS):
        real = real_batch(step)
        replaced = loops.advance(real)
        state = advance(state, synthetic, jax.random.key(step), real)
        if replaced:
            assert int(state.uses) == 0 and not np.any(state.accuracies)
            loops.new(state.variables["params"])
            loops.renewals += 1
            assert np.abs(state.variables["params"]["hidden0"]["kernel"]).max() <= 0.25  # untrained
            assert not any(np.any(x) for x in jax.tree.leaves(state.optimizer))
        assert (int(state.uses), int(state.renewals)) == (loops.uses, loops.renewals), step
        kept = min(loops.uses, LIMITS["window"])
        np.testing.assert_allclose(state.accuracies[LIMITS["window"] - kept:], loops.window,
                                   atol=1e-6)
        for ours, theirs in zip(jax.tree.leaves(state.variables["params"]),
                                jax.tree.leaves(loops.params)):
            np.testing.assert_allclose(ours, theirs, atol=2e-4)  # so the passes were as many
    assert set(loops.endings) == {"still", "max_uses", "moved", "max_epochs"}, loops.endings


def test_a_fixed_key_gives_fixed_results_and_seeds_can_be_vmapped(compiled):
    init, advance = compiled
    synthetic, real = synthetic_set(), real_batch(5)
    states = jax.vmap(lambda s: init(jax.random.key(s), synthetic))(jnp.arange(3))
    many = jax.jit(jax.vmap(lambda state, s: advance(state, synthetic, jax.random.key(s), real)))
    after = many(states, jnp.arange(3))
    for seed in range(3):
        alone = jax.tree.map(lambda x, seed=seed: x[seed], states)
        one, again = (advance(alone, synthetic, jax.random.key(seed), real) for _ in "ab")
        for a, b, c in zip(*(jax.tree.leaves(x) for x in (one, again, after))):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_allclose(c[seed], a, atol=2e-5)


def test_the_set_has_no_derivative_through_the_training(compiled):
    init, advance = compiled
    synthetic = synthetic_set()
    state = init(jax.random.key(0), synthetic)

    def after(images):
        moved = advance(state, synthetic._replace(images=images), jax.random.key(1), real_batch())
        return jnp.sum(moved.variables["params"]["hidden0"]["kernel"])

    # Reverse mode through a loop of unknown length would be refused.
    assert not np.any(jax.grad(after)(synthetic.images))


def test_accuracies_are_those_of_as_many_images_drawn_with_replacement():
    real = real_batch(1, each=6)
    variables = NETWORK.init(jax.random.key(2))
    keys = jax.random.split(jax.random.key(0), 400)
    values = np.asarray(jax.jit(jax.vmap(
        lambda key: resampled_accuracy(NETWORK, variables, real, key)))(keys))
    params = reference.as_float64(variables["params"])
    each = np.array([accuracy(params, Batch(real.images[c], real.labels[c]))
                     for c in range(CLASSES)])
    assert 0 < each.mean() < 1
    deviation = np.sqrt((each * (1 - each)).mean() / (6 * CLASSES))  # of one value
    assert abs(values.mean() - each.mean()) < 5 * deviation / 20
    assert 0.85 < values.std() / deviation < 1.15


def test_a_network_that_cannot_become_better_is_not_trained_for_ever():
    """Of a rate of 0: the noise of the draws ends most trainings before the cap."""
    pool = plateau_pool(NETWORK, max_uses=9, max_epochs=1000, window=3, moved=0.1,
                        optimizer=optax.chain(optax.sgd(0.0), optax.stateless(
                            lambda u, p: jax.tree.map(lambda x: x + 1e-6, u))))
    real, synthetic = real_batch(1, each=6), synthetic_set()
    state = pool.init(jax.random.key(2), synthetic)
    after = jax.jit(pool.advance)(state, synthetic, jax.random.key(0), real)
    before, moved = (s.variables["params"]["head"]["kernel"] for s in (state, after))
    passes = np.asarray((moved - before) / 1e-6).mean()
    assert 2.5 < passes < 200


def test_real_images_that_are_not_by_class_are_refused():
    pool, real, synthetic = made(), real_batch(1, each=2), synthetic_set()
    flat = Batch(real.images.reshape(-1, *real.images.shape[2:]), real.labels.reshape(-1))
    with pytest.raises(ConfigError, match=r"labels of shape \(\d+,\), expected .*\[K, n\]"):
        pool.advance(pool.init(jax.random.key(0), synthetic), synthetic, jax.random.key(1), flat)


@pytest.mark.parametrize("options", [
    {"max_uses": 0}, {"max_epochs": 2}, {"window": 1}, {"batch_size": 0}, {"still": -0.1},
    {"moved": float("nan")},
], ids=lambda o: next(iter(o)))
def test_bad_settings_are_refused_by_name(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        made(**options)
