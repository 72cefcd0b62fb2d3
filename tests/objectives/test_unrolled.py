"""The loss after an inner loop, its derivative and its windows, against loops written out."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import augment, nets, objectives, pools
from dd_jax.distill import outer
from dd_jax.errors import ConfigError
from dd_jax.train import adjoint_by_name, class_rows, stored_order, student
from dd_jax.train.window import RandomWindow, first_place, next_place
from dd_jax.types import Augmentation, Batch, Pool, SyntheticSet
from tests.laws import members

NETWORK = nets.mlp(members.SPEC, width=3, depth=2)
OPTIMIZERS = {"sgd": None, "heavy ball": optax.trace(0.9),
              "adam": optax.scale_by_adam(eps_root=1e-8)}


def synthetic(rate=0.1, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    images, labels = rng.normal(size=(4, *members.SHAPE)), rng.dirichlet(np.ones(2), size=4)
    rate = None if rate is None else jnp.asarray(rate, dtype)
    return SyntheticSet(jnp.asarray(images, dtype), jnp.asarray(labels, dtype), rate)


def real(dtype=np.float64, count=6):
    rng = np.random.default_rng(7)
    return Batch(jnp.asarray(rng.normal(size=(count, *members.SHAPE)), dtype),
                 jnp.asarray(np.arange(count) % 2, jnp.int32))


@functools.cache
def parameters():
    """As numbers: drawn inside two programs, they may differ in the last bit of float32."""
    with jax.enable_x64(False):
        return jax.tree.map(np.asarray, NETWORK.init(jax.random.key(3)))


@pytest.fixture(autouse=True, scope="module")
def drawn_before_any_trace():
    parameters()


def one_network():
    return Pool(lambda key, synthetic: (), lambda state, key: jax.tree.map(jnp.asarray,
                                                                          parameters()),
                lambda state, synthetic, key: state)


def objective(learner, **options):
    options = {"pool": one_network(), "batch_size": 6, **options}
    return objectives.unrolled(learner, **options)


def gradient_of(made, state, key):
    return jax.jit(lambda s: jax.value_and_grad(
        lambda s: made.loss(s, state, real(s.images.dtype), key)[0])(s))


def written_out(learner, synthetic, key, *, constant=0, steps=None):
    """The loss by a Python loop whose first steps, `constant` of them, are behind stop_gradient."""
    plan_key = jax.random.split(key, 3)[1]
    inputs = learner.plan(plan_key, synthetic.images.shape[0])
    params = jax.tree.map(lambda x: jnp.asarray(x, synthetic.images.dtype), parameters()["params"])
    carry = learner.begin(params)
    for i in range(learner.steps if steps is None else steps):
        shared = jax.lax.stop_gradient(synthetic) if i < constant else synthetic
        carry = learner.step(carry, jax.tree.map(lambda x: x[i], inputs), shared)  # noqa: B023
        if i < constant:
            carry = jax.lax.stop_gradient(carry)
    batch = real(synthetic.images.dtype)
    logits = NETWORK.apply({"params": carry[0]}, batch.images).logits
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch.labels))


@pytest.mark.parametrize("adjoint", ["full", "checkpointed", "recursive"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_meta_gradient_is_that_of_central_differences(name, adjoint):
    """Images, labels and one rate per step, in stored order."""
    with jax.enable_x64(True):
        learner = student(NETWORK, steps=5, plan=stored_order(2, 1), optimizer=OPTIMIZERS[name],
                          adjoint=adjoint_by_name(adjoint))
        shared = synthetic(rate=[0.1, 0.03, 0.07, 0.2, 0.05])
        made, key = objective(learner), jax.random.key(1)
        state = made.init(jax.random.key(0), shared)
        loss = gradient_of(made, state, key)
        value, gradient = loss(shared)
        wanted = jax.jit(functools.partial(written_out, learner))(shared, key)
        np.testing.assert_allclose(value, wanted, rtol=1e-12)
        rng = np.random.default_rng(3)
        for part in ("images", "labels", "learning_rate"):
            here = getattr(shared, part)
            way = rng.normal(size=here.shape)
            numeric = []
            for h in (3e-5, 1e-5, 1e-6):  # a kink of ReLU in between spoils a difference
                ends = [loss(shared._replace(**{part: here + s * h * way}))[0] for s in (1, -1)]
                numeric.append(float(ends[0] - ends[1]) / (2 * h))
            exact = float(np.sum(getattr(gradient, part) * way))
            error = min(abs(n - exact) for n in numeric) / abs(exact)
            print(f"{name}, {adjoint}: {part} {error:.1e}")
            assert error < 1e-6, (part, numeric, exact)


@pytest.mark.parametrize("name", ["heavy ball", "adam"])
def test_a_window_is_a_loop_whose_first_steps_are_constants(name):
    with jax.enable_x64(True):
        learner = student(NETWORK, steps=6, plan=class_rows(2, 1), optimizer=OPTIMIZERS[name])
        window = RandomWindow(2, 6)
        made, key = objective(learner, window=window), jax.random.key(1)
        shared = synthetic()
        start = made.init(jax.random.key(0), shared)

        @jax.jit
        def ours(place, s):
            state = start._replace(window=start.window._replace(start=place))
            return jax.value_and_grad(lambda s: made.loss(s, state, real(), key)[0])(s)

        for place in (0, 3, 4):
            value, gradient = ours(jnp.int32(place), shared)
            theirs = jax.jit(jax.value_and_grad(functools.partial(
                written_out, learner, key=key, constant=place, steps=place + 2)))(shared)
            np.testing.assert_allclose(value, theirs[0], rtol=1e-12)
            for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(theirs[1])):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * np.abs(b).max())


def test_a_truncated_student_is_the_same_as_a_last_window():
    with jax.enable_x64(True):
        shared, key = synthetic(), jax.random.key(1)
        found = []
        for adjoint, window in ((adjoint_by_name("truncated", window=2), None),
                                (None, RandomWindow(2, 5, mode="last"))):
            learner = student(NETWORK, steps=5, batch_size=2, adjoint=adjoint)
            made = objective(learner, window=window)
            found.append(gradient_of(made, made.init(jax.random.key(0), shared), key)(shared))
        for a, b in zip(*map(jax.tree.leaves, found)):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_several_networks_are_averaged():
    shared = synthetic(dtype=np.float32)
    learner = student(NETWORK, steps=2)
    key = jax.random.key(1)
    found = {}
    for how in ("map", "vmap"):
        made = objective(learner, pool=pools.fresh_pool(NETWORK), networks=3, how=how)
        state = made.init(jax.random.key(0), shared)
        found[how] = gradient_of(made, state, key)(shared)
    one = objective(learner, pool=pools.fresh_pool(NETWORK))
    each = [one.loss(shared, one.init(key, shared), real(np.float32), k)[0]
            for k in jax.random.split(key, 3)]
    assert np.std(each) > 1e-4
    for value, gradient in found.values():
        np.testing.assert_allclose(value, np.mean(each), rtol=1e-5)
        np.testing.assert_allclose(gradient.images, found["map"][1].images, rtol=1e-3, atol=1e-6)


def test_shared_draws_are_one_for_all_steps_and_the_real_batch():
    drawn = []

    def draw(key, count):
        assert count == 1
        return jax.random.uniform(key, (count, 1, 1, 1))

    def apply(params, images):
        jax.debug.callback(lambda p: drawn.append(float(p.ravel()[0])), params)
        return images * params

    once = Augmentation(draw, apply)
    learner = student(NETWORK, steps=3, augmentation=once, shared_draw=True)
    made, shared = objective(learner, augmentation=once), synthetic(dtype=np.float32)
    state = made.init(jax.random.key(0), shared)
    loss = jax.jit(lambda key: made.loss(shared, state, real(np.float32), key)[0])
    for seed in range(2):
        loss(jax.random.key(seed)).block_until_ready()
        jax.effects_barrier()
    assert len(drawn) == 8 and len(set(drawn)) == 2, drawn


def test_the_real_batch_is_drawn_and_augmented():
    learner = student(NETWORK, steps=1)
    data = members.toy_data()
    by_class = objective(learner, per_class=True, batch_size=3)
    rows = by_class.sample(data, None, jax.random.key(0))
    assert rows.shape == (2, 3)
    np.testing.assert_array_equal(data.labels[rows], [[0] * 3, [1] * 3])
    shared = synthetic(dtype=np.float32)
    batch = Batch(jnp.zeros((2, 3, *members.SHAPE)), data.labels[rows])
    state = by_class.init(jax.random.key(0), shared)
    flat = Batch(batch.images.reshape(6, *members.SHAPE), batch.labels.reshape(6))
    values = [made.loss(shared, state, b, jax.random.key(1))[0]
              for made in (by_class, objective(learner)) for b in (batch, flat)]
    np.testing.assert_allclose(values, values[0], rtol=1e-6)
    moved = objective(learner, augmentation=augment.dsa(members.SHAPE, strategy="crop"))
    batch = real(np.float32)
    values = [made.loss(shared, state, batch, jax.random.key(s))[0]
              for made in (moved, objective(learner)) for s in (1, 2)]
    assert values[0] != values[1] and values[2] == values[3]


def test_a_zero_rate_runs_and_moves_nothing():
    learner = student(NETWORK, steps=3)
    made, shared = objective(learner, rate=0.0), synthetic(rate=None, dtype=np.float32)
    state = made.init(jax.random.key(0), shared)
    value, gradient = gradient_of(made, state, jax.random.key(1))(shared)
    untrained = written_out(learner, shared, jax.random.key(1), steps=0)
    np.testing.assert_allclose(value, untrained, rtol=1e-6)
    assert not np.any(gradient.images)


def test_an_exploding_inner_loop_is_seen():
    """A loss that is not finite, not a finite number that hides it."""
    learner = student(NETWORK, steps=20)
    made, shared = objective(learner, rate=1e8), synthetic(rate=None, dtype=np.float32)
    shared = shared._replace(images=100 * shared.images)
    state = made.init(jax.random.key(0), shared)
    value, gradient = gradient_of(made, state, jax.random.key(1))(shared)
    assert not bool(outer.all_finite(value, gradient.images))


def test_a_pool_is_given_what_it_asks_for():
    """Real images where it watches, none where it does not: nobody has to say so."""
    given = []

    def watch(state, synthetic, key, *real):
        given.append([r.images.shape for r in real])
        return state

    shared = synthetic(dtype=np.float32)
    by_class = Batch(jnp.zeros((2, 3, *members.SHAPE)), jnp.zeros((2, 3), jnp.int32))
    for watches in (False, True):
        pool = one_network()._replace(advance=watch, watches=watches)
        made = objective(student(NETWORK, steps=1), pool=pool, per_class=True, batch_size=3)
        made.advance(shared, made.init(jax.random.key(0), shared), by_class, jax.random.key(1))
    assert given == [[], [(6, *members.SHAPE)]]
    assert pools.restarting_pool(NETWORK).watches and not pools.fresh_pool(NETWORK).watches


def test_a_pool_may_have_the_student_s_own_batch():
    """Its network is given the images of the step that was differentiated, and no others."""
    pool = one_network()._replace(init=lambda key, given: given.images[:2],
                                  advance=lambda state, given, key: given.images)
    made = objective(student(NETWORK, steps=1, batch_size=2), pool=pool, shared_batch=True)
    whole = objective(student(NETWORK, steps=1))
    shared, batch, key, seen = synthetic(dtype=np.float32), real(np.float32), jax.random.key(0), []
    loss, wanted = jax.jit(made.loss), jax.jit(whole.loss)
    state, advance = made.init(key, shared), jax.jit(made.advance)
    for i in range(5):
        value = loss(shared, state, batch, jax.random.key(50 + i))[0]
        state = advance(shared, state, batch, jax.random.key(i))
        rows = [int(np.argmax((shared.images == image).all(axis=(1, 2, 3))))
                for image in state.pool]
        taken = shared._replace(images=shared.images[jnp.array(rows)],
                                labels=shared.labels[jnp.array(rows)])
        np.testing.assert_allclose(value, wanted(taken, whole.init(key, taken), batch, key)[0],
                                   rtol=1e-5)
        seen.append(tuple(sorted(rows)))
    assert len(set(seen)) > 1 and all(a != b for a, b in seen)
    assert whole.init(key, shared).plan == ()
    with pytest.raises(ConfigError, match="networks is 2.*networks=1"):
        objective(student(NETWORK, steps=1), shared_batch=True, networks=2)


def places(window, losses, seed=0):
    """n0 of each outer step, where the loss that is looked at is given."""
    move = jax.jit(lambda state, key, loss: next_place(window, state, key, lambda: loss))
    state, found = first_place(window, jax.random.key(seed)), []
    for i, loss in enumerate(losses):
        found.append(int(state.start))
        state = move(state, jax.random.key(100 + i), jnp.float32(loss))
    return found


def test_random_windows_are_drawn_alike_and_held():
    window = RandomWindow(3, 10, low=2, hold=4)
    found = places(window, [0.0] * 400)
    assert all(len(set(found[i : i + 4])) == 1 for i in range(0, 400, 4))
    counts = np.bincount(found[::4], minlength=8)
    assert len(counts) == 8 and not counts[:2].any() and counts[2:].min() > 5
    assert len(set(places(RandomWindow(3, 10), [0.0] * 30))) > 3


def test_a_last_window_stays_and_a_forward_one_waits_for_the_loss():
    assert set(places(RandomWindow(3, 10, mode="last"), [0.0] * 5)) == {7}
    window = RandomWindow(3, 10, low=1, mode="forward", patience=2)
    #                 best  best  stalled, stalled -> on; new best there, and so on
    losses = [5.0, 4.0, 4.5, 4.0, 6.0, 7.0, 6.5, 3.0, 3.5, 3.0, 1.0]
    assert places(window, losses) == [1, 1, 1, 1, 4, 4, 4, 7, 7, 7, 7]
    held = places(RandomWindow(3, 10, mode="forward", patience=1, hold=3), [1.0] * 14)
    assert held == [0] * 6 + [3] * 6 + [6] * 2


def test_forward_looks_at_the_loss_of_its_own_window():
    learner = student(NETWORK, steps=4)
    window = RandomWindow(2, 4, mode="forward", hold=2)
    made, shared = objective(learner, window=window), synthetic(dtype=np.float32)
    state = made.init(jax.random.key(0), shared)
    advance, batch = jax.jit(made.advance), real(np.float32)
    state = advance(shared, state, batch, jax.random.key(1))
    assert np.isinf(state.window.best)
    state = advance(shared, state, batch, jax.random.key(1))
    wanted = written_out(learner, shared, jax.random.key(1), steps=2)
    np.testing.assert_allclose(state.window.best, wanted, rtol=1e-5)


@pytest.mark.parametrize("build,said", [
    (lambda: objective(student(NETWORK, steps=4), window=RandomWindow(2, 5)),
     "horizon is 5.*4 steps.*horizon=4"),
    (lambda: objective(student(NETWORK, steps=4), rate=-1.0), "rate is -1.0"),
    (lambda: objective(student(NETWORK, steps=4), networks=0), "networks is 0"),
    (lambda: objective(student(NETWORK, steps=4), batch_size=0), "batch_size is 0"),
    (lambda: objective(student(NETWORK, steps=4), how="vamp"), "'vamp'.*'vmap'"),
    (lambda: objective(student(NETWORK, steps=4), window=(2, 3)),
     r"window is \(2, 3\), expected a RandomWindow or None"),
    (lambda: objective(student(NETWORK, steps=4), pool=None), "pool is None, expected a Pool"),
    (lambda: objective(student(NETWORK, steps=4), pool=pools.fresh_pool),
     "pool is fresh_pool, expected a Pool.*not the factory"),
    (lambda: objective(student(NETWORK, steps=4), augmentation=augment.dsa),
     "augmentation is dsa, expected an Augmentation or None.*not the factory"),
    (lambda: objective(student), "student is student, expected a Student.*not the factory"),
    (lambda: student(NETWORK, steps=4, augmentation=augment.dsa),
     "augmentation is dsa, expected an Augmentation or None.*not the factory"),
    (lambda: objectives.classification(NETWORK, pools.restarting_pool(NETWORK)),
     "looks at real images.*inner_trained_pool"),
    (lambda: objectives.classification(NETWORK, None), "pool is None"),
    (lambda: objectives.classification(NETWORK, one_network(), augmentation=augment.dsa),
     "augmentation is dsa"),
    (lambda: objective(student(NETWORK, steps=4)).init(
        jax.random.key(0), synthetic(None, np.float32)),
     "no learning rate.*rate=0.01"),
    (lambda: objective(student(NETWORK, steps=4)).init(
        jax.random.key(0), synthetic([0.1, 0.2], np.float32)),
     "2 learning rates for 4 steps"),
    (lambda: RandomWindow(0, 5), "length is 0"),
    (lambda: RandomWindow(3, 5, low=3), "horizon=6"),
    (lambda: RandomWindow(3, 5, mode="randon"), "'randon'.*'random'"),
    (lambda: pools.fixed_pool(NETWORK, seed=-1), "seed is -1"),
    (lambda: pools.restarting_pool(NETWORK, window=0), "window is 0"),
])
def test_wrong_input_is_refused(build, said):
    with pytest.raises(ConfigError, match=said):
        build()
