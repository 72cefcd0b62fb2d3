"""The laws of every objective."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import objectives, pools, train
from dd_jax.data import standardise
from dd_jax.distill import outer
from dd_jax.errors import ConfigError
from dd_jax.types import Objective
from tests.laws import members


# One worker meets all laws of a member, so that what a law has compiled serves the next one.
@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name))
                        for name in sorted(members.OBJECTIVES)])
def name(request):
    return request.param


@functools.cache
def made(name):
    members.toy_data()  # cached before any trace
    return members.OBJECTIVES[name]()


def fetch(objective, state, key):
    """The batch of one step in model space."""
    data = members.toy_data()
    rows = objective.sample(data, state, key)
    return outer.in_model_space(standardise(data), outer.fetch(data, rows))


@functools.cache
def starter(name):
    objective = made(name)

    @jax.jit
    def start(seed, synthetic):
        state = objective.init(jax.random.key(seed), synthetic)
        return state, fetch(objective, state, jax.random.key(seed + 100))

    return start


@functools.cache
def prepared(name, *, seed=0, kind="noise"):
    """(a set, a fresh state, its batch) in float32, whichever law asks first."""
    with jax.enable_x64(False):
        synthetic = members.start(kind)
        return synthetic, *starter(name)(seed, synthetic)


# Whose loss is another one after a step. At their first turn they are, in part, other members or
# what tests/objectives/test_class_by_class.py and test_alternating.py compare with references.
LATER = ("class_by_class", "alternating", "distribution_matching/queue")


@functools.cache
def prepared_turn(name):
    """`prepared`, or for objectives of LATER with the state after one step: the second turn."""
    synthetic, state, batch = prepared(name)
    if not name.startswith(LATER):
        return synthetic, state, batch
    with jax.enable_x64(False):
        state = compiled_advance(name)(synthetic, state, batch, jax.random.key(1))
        return synthetic, state, fetch(made(name), state, jax.random.key(101))


class Compiled:
    """A jitted function that counts how often it is traced."""

    def __init__(self, fn):
        self.traces = 0

        def counted(*args):
            self.traces += 1
            return fn(*args)

        self._call = jax.jit(counted)

    def __call__(self, *args):
        return self._call(*args)


@functools.cache
def compiled_gradient(name):
    """(synthetic, state, batch, key) -> (loss, its gradient in the images)."""
    return Compiled(functools.partial(image_gradient, made(name)))


@functools.cache
def compiled_advance(name):
    return Compiled(made(name).advance)


def image_gradient(objective, synthetic, state, batch, key):
    def loss(images):
        return objective.loss(synthetic._replace(images=images), state, batch, key)[0]

    return jax.value_and_grad(loss)(synthetic.images)


def test_state_keeps_its_tree_shapes_and_dtypes(name):
    synthetic, state, batch = prepared(name)
    after = jax.eval_shape(made(name).advance, synthetic, state, batch, jax.random.key(1))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after)):
        assert a.shape == b.shape and a.dtype == b.dtype


def test_no_leaf_of_the_state_is_a_key(name):
    state = jax.eval_shape(made(name).init, jax.random.key(0), members.start("noise"))
    for leaf in jax.tree.leaves(state):
        assert not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def test_loss_and_gradient_are_finite(name):
    for kind in ("noise", "real", "constant"):
        synthetic, state, batch = prepared(name, kind=kind)
        if name.startswith(LATER):
            _, state, batch = prepared_turn(name)
        value, gradient = compiled_gradient(name)(synthetic, state, batch, jax.random.key(2))
        assert value.shape == () and np.isfinite(value), kind
        assert np.all(np.isfinite(gradient)), kind


def test_same_key_same_value_other_key_other_value(name):
    synthetic, state, batch = prepared(name)
    loss = compiled_gradient(name)
    first, again = (loss(synthetic, state, batch, jax.random.key(3))[0] for _ in "ab")
    assert first == again
    other_state, other_batch = starter(name)(9, synthetic)
    assert first != loss(synthetic, other_state, other_batch, jax.random.key(4))[0]


def test_no_key_is_used_twice(name):
    objective = made(name)

    def step(keys, synthetic):
        state = objective.init(keys[0], synthetic)
        batch = fetch(objective, state, keys[1])
        value, _ = objective.loss(synthetic, state, batch, keys[2])
        return value, objective.advance(synthetic, state, batch, keys[3])

    with jax.debug_key_reuse(True):  # checks what is traced
        jax.jit(step).trace([jax.random.key(seed) for seed in range(4)], members.start("noise"))


def test_a_key_that_is_used_twice_is_found():
    """Two draws from one; not, in this checker, two equal `fold_in`s of one."""
    def twice(key):
        return jax.random.normal(key) + jax.random.uniform(key)

    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(twice).trace(jax.random.key(0))


def test_metrics_are_scalars(name):
    synthetic, state, batch = prepared(name)
    metrics = jax.eval_shape(made(name).loss, synthetic, state, batch, jax.random.key(0))[1]
    for metric, value in metrics.items():
        assert jnp.shape(value) == (), metric


def test_gradient_equals_central_differences_in_float64(name):
    if name in members.BIASED:
        pytest.skip(f"biased: {members.BIASED[name]}")
    # Its own objective: what one has traced in float32 is of no use in float64.
    objective, start = members.OBJECTIVES[name](), prepared_turn(name)
    with jax.enable_x64(True):
        wide = lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x  # noqa: E731
        synthetic, state, batch = jax.tree.map(wide, start)
        key = jax.random.key(5)
        direction = jnp.asarray(np.random.default_rng(0).normal(size=synthetic.images.shape))
        gradient = jax.jit(lambda: image_gradient(objective, synthetic, state, batch, key)[1])()

        @jax.jit
        def along(t):
            moved = synthetic._replace(images=synthetic.images + t * direction)
            return objective.loss(moved, state, batch, key)[0]

        # ReLU kinks between the two points spoil a difference: take the best of three step sizes.
        errors = []
        for step in (1e-4, 1e-5, 1e-6):
            numeric = (along(step) - along(-step)) / (2 * step)
            analytic = jnp.vdot(gradient, direction)
            errors.append(float(jnp.abs(numeric - analytic) / jnp.abs(numeric)))
        assert min(errors) < 1e-5, errors


def test_sixty_steps_compile_once_and_lower_the_loss(name):
    objective, (synthetic, state, batch) = made(name), prepared(name)
    gradient_of, advance = compiled_gradient(name), compiled_advance(name)
    optimizer, losses, traces = optax.adam(0.05), [], []
    update, refetch = jax.jit(optimizer.update), jax.jit(functools.partial(fetch, objective))
    opt_state = optimizer.init(synthetic.images)
    for i in range(60):
        key = jax.random.fold_in(jax.random.key(0), i)
        value, gradient = gradient_of(synthetic, state, batch, key)
        updates, opt_state = update(gradient, opt_state)
        synthetic = synthetic._replace(images=optax.apply_updates(synthetic.images, updates))
        state = advance(synthetic, state, batch, key)
        batch = refetch(state, key)
        losses.append(float(value))
        traces.append((gradient_of.traces, advance.traces))
    assert traces[-1] == traces[0]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_vmap_over_seeds_equals_separate_runs(name):
    objective, synthetic = made(name), members.start("noise")

    def run(seed, advance, gradient):
        state, batch = starter(name)(seed, synthetic)
        key = jax.random.fold_in(jax.random.key(seed), 1)
        return gradient(synthetic, advance(synthetic, state, batch, key), batch, key)

    plain = objective.advance, functools.partial(image_gradient, objective)
    many = jax.jit(jax.vmap(lambda seed: run(seed, *plain)))(jnp.arange(3))
    for seed in range(3):
        value, gradient = run(seed, compiled_advance(name), compiled_gradient(name))
        np.testing.assert_allclose(many[0][seed], value, rtol=1e-3)
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(many[1][seed] / scale, gradient / scale, atol=2e-3)


def traits(objective):
    return objective.turns, objective.bound, objective.real


def with_traits(factor=1.0):
    """An objective that has all traits; its variants have a loss twice and thrice its own."""
    asked = []

    def scaled(factor):
        def loss(synthetic, state, batch, key):
            return factor * jnp.sum(synthetic.images**2), {}

        return loss

    def variant(times):
        asked.append(times)
        return objective._replace(loss=scaled(times * factor), variants={})

    objective = Objective(
        scaled(factor), sample=lambda data, state, key: data.class_rows[:, :4],
        embed=lambda state, images, key: images.reshape(len(images), -1),
        turns=3, bound="its images are counted", real=False,
        variants={"twice": lambda: variant(2.0), "thrice": lambda: variant(3.0)})
    return objective, asked


def value_of(objective):
    members.toy_data()  # cached before any trace
    synthetic, key = members.start(), jax.random.key(0)

    @jax.jit
    def value():
        state = objective.init(key, synthetic)
        return objective.loss(synthetic, state, fetch(objective, state, key), key)[0]

    return float(value())


@pytest.mark.parametrize("combine", members.COMBINATORS.values(), ids=members.COMBINATORS)
def test_a_combinator_keeps_the_traits_and_wraps_the_variants_when_they_are_asked_for(combine):
    plain, asked = with_traits()
    combined = combine(plain)
    assert traits(combined) == traits(plain)
    assert (combined.embed is None) == (plain.embed is None)
    assert list(combined.variants) == ["twice", "thrice"] and not asked
    twice = combined.variants["twice"]()
    assert asked == [2.0] and traits(twice) == traits(plain) and not twice.variants
    np.testing.assert_allclose(value_of(twice), 2 * value_of(combined), rtol=1e-6)


@pytest.mark.parametrize("combine,turns", [
    (lambda parts: objectives.weighted_sum(parts, [1.0, 1.0]), 3),
    (lambda parts: objectives.alternating(parts, [2, 5]), 7),
], ids=["weighted_sum", "alternating"])
def test_objectives_of_several_join_their_traits(combine, turns):
    plain = Objective(lambda synthetic, state, batch, key: (0.0, {}))
    bound, asked = with_traits()
    assert traits(combine([plain, plain])) == (7 if turns == 7 else 1, "", True)
    assert traits(combine([bound, bound])) == (turns, bound.bound, False)
    mixed = combine([plain, bound])
    assert traits(mixed) == (turns, bound.bound, True)
    assert list(mixed.variants) == ["twice", "thrice"] and not asked
    mixed.variants["thrice"]()  # of the part that has it
    assert asked == [3.0]


def test_the_sum_of_variants_is_a_variant_of_the_sum():
    parts = [with_traits(factor)[0] for factor in (1.0, 10.0)]
    whole = objectives.weighted_sum(parts, [1.0, 0.5])
    np.testing.assert_allclose(value_of(whole.variants["thrice"]()), 3 * value_of(whole),
                               rtol=1e-6)


def test_class_by_class_has_as_many_turns_as_classes():
    plain, _ = with_traits()
    in_turn = objectives.class_by_class(plain, classes=10)
    assert in_turn.turns == in_turn.variants["twice"]().turns == 10
    with pytest.raises(ConfigError, match="classes is 0"):
        objectives.class_by_class(plain, classes=0)


@pytest.mark.parametrize("name,wanted", [
    ("loss_alone", (1, "", True)),
    ("classification", (1, "", False)),
    ("trajectory_matching", (1, "", False)),
    ("barycentre_matching", (1, "each of its images has its own point of a barycentre", False)),
    ("unrolled", (1, "", True)),
    ("alternating", (3, "", True)),
])
def test_members_say_what_they_need(name, wanted):
    assert traits(made(name)) == wanted


def test_an_unrolled_objective_says_what_its_caller_says():
    network = members.one_convolution()
    learner = train.student(network, steps=2, plan=train.stored_order(members.CLASSES, 1))
    objective = objectives.unrolled(learner, batch_size=4, rate=0.1, bound="its images are ordered",
                                    pool=pools.fresh_pool(network))
    assert objectives.mirrored(objective).bound == "its images are ordered"
