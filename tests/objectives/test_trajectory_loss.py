"""Where students and experts arrive, against float64 NumPy with derivatives by hand."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.objectives import (
    Segments,
    StartEpochs,
    nearest,
    trajectory_matching,
    waypoints,
)
from dd_jax.objectives.trajectory_matching import TrajectoryState
from dd_jax.train import StepInput, adjoint_by_name, student
from dd_jax.train.segments import Segment
from dd_jax.types import SyntheticSet
from tests.laws import members
from tests.objectives import reference_gradients as reference

WIDTH, STEPS, SPAN, EPOCH = 4, 5, 3, 1
NETWORK = nets.mlp(members.SPEC, width=WIDTH, depth=2)
# In the order in which a trajectory holds them.
LAYERS = [("head", "bias", (2,)), ("head", "kernel", (WIDTH, 2)), ("hidden0", "bias", (WIDTH,)),
          ("hidden0", "kernel", (64, WIDTH))]
WHOLE = [[0, 1, 2, 3]] * STEPS
BATCHES = [[0, 2, 1], [3, 0, 3], [1, 2, 0], [2, 3, 1], [0, 1, 3]]


@functools.cache
def walks():
    return members.Walks(NETWORK, experts=1, epochs=EPOCH + SPAN)


def tree(flat):
    params, at = {}, 0
    for layer, name, shape in LAYERS:
        size = int(np.prod(shape))
        params.setdefault(layer, {})[name] = flat[at:at + size].reshape(shape)
        at += size
    return params


def flat(params):
    return np.concatenate([np.ravel(params[layer][name]) for layer, name, _ in LAYERS])


def slope(theta, shared, rows):
    return flat(reference.gradient(tree(theta), shared.images[rows], shared.labels[rows]))


def walk(start, shared, plan, *, momentum=0.0, factor=1.0):
    """[N + 1, P]: b <- momentum b + g, theta <- theta - factor rate b."""
    path, velocity = [start], np.zeros_like(start)
    for rows in plan:
        velocity = momentum * velocity + slope(path[-1], shared, rows)
        path.append(path[-1] - factor * shared.learning_rate * velocity)
    return np.stack(path)


def ratio(reached, target, start):
    return ((reached - target) ** 2).sum() / ((start - target) ** 2).sum()


def to_the_end(expert, shared, plan, **options):
    return ratio(walk(expert[0], shared, plan, **options)[-1], expert[-1], expert[0])


def at_step(k):
    def value(expert, shared, plan):
        return ratio(walk(expert[0], shared, plan)[k], expert[-1], expert[0])
    return value


def on_the_way(betas):
    def value(expert, shared, plan, **options):
        path = walk(expert[0], shared, plan, **options)
        # Five steps for three epochs: after one and two steps, and at the end.
        return sum(beta * ratio(path[at], expert[i], expert[0])
                   for beta, at, i in zip(betas, (1, 2, 5), (1, 2, 3)))
    return value


# name -> (plan, options of the student, options of the objective, reference)
CASES = {
    "endpoint": (WHOLE, {}, {}, to_the_end),
    "heavy ball and schedule": (
        BATCHES, dict(optimizer=optax.trace(0.9)),
        dict(rate_schedule=lambda epoch: 1.0 + 0.5 * epoch),
        lambda *args: to_the_end(*args, momentum=0.9, factor=1.0 + 0.5 * EPOCH)),
    "nearest": (WHOLE, {}, dict(loss=nearest()), at_step(2)),
    "aggregate": (BATCHES, {}, dict(loss=waypoints()), on_the_way((1, 1, 1))),
    "adaptive": (WHOLE, dict(optimizer=optax.trace(0.9)), dict(loss=waypoints("adaptive")),
                 lambda *args: on_the_way((1 / 3, 2 / 3, 1))(*args, momentum=0.9)),
}


def arrays():
    rng = np.random.default_rng(0)
    return SyntheticSet(rng.normal(size=(4, *members.SHAPE)),
                        rng.dirichlet(np.ones(2), size=4), np.array(0.8))


def expert_of(name, shared):
    """[SPAN + 1, P] float64 that float32 holds: epochs EPOCH to EPOCH + SPAN of one expert."""
    rows = walks().rows[0, EPOCH:].astype(np.float64)
    if name == "nearest":
        # The second step is nearest by the L1 distance and, for one long spike, not by the L2 one.
        path = walk(rows[0], shared, WHOLE)
        way = path[4] - path[2]
        spike = np.abs(way).argmax()
        rows[-1] = path[2]
        rows[-1, spike] += (way @ way) / way[spike]
        rows = np.float32(rows).astype(np.float64)
        assert ((path[1:] - rows[-1]) ** 2).sum(axis=1).argmin() != 1
    return rows


def built(plan=WHOLE, *, adjoint="full", optimizer=None, **options):
    """The objective, whose student goes through these rows."""
    learner = student(NETWORK, steps=len(plan), optimizer=optimizer,
                      adjoint=adjoint_by_name(adjoint))
    rows = None if plan == WHOLE else np.asarray(plan, np.int32)
    active = np.ones(len(plan))
    learner = learner._replace(plan=lambda key, size: StepInput(rows=rows, active=active))
    segments = Segments(walks(), SPAN)
    return trajectory_matching(learner, segments, starts=StartEpochs(0, 1), **options)


def segment_of(expert):
    expert = np.float32(expert)
    return Segment(expert[0], expert[-1], expert[1:-1], np.int32(EPOCH))


def slopes(objective, segment):
    """(set) -> (loss, metrics), gradient in the set."""
    def loss(shared):
        return objective.loss(shared, TrajectoryState(jnp.int32(0)), segment, jax.random.key(0))

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda shared: compiled(jax.tree.map(jnp.asarray, shared))


def evaluated(objective, shared, segment):
    return slopes(objective, segment)(shared)


def differences(value, shared):
    """Central differences of `value` in everything that is learned."""
    def of(name):
        part = getattr(shared, name)
        slopes = reference.central_differences(
            lambda flat: value(shared._replace(**{name: flat.reshape(part.shape)})), part.ravel())
        return slopes.reshape(part.shape)

    return SyntheticSet(of("images"), of("labels"), of("learning_rate"))


def close(found, wanted, tolerance=1e-6):
    for part in ("images", "labels", "learning_rate"):
        a, b = np.asarray(getattr(found, part)), getattr(wanted, part)
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max(), rtol=0, err_msg=part)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_the_reference(name):
    plan, of_student, of_objective, value = CASES[name]
    shared = arrays()
    expert = expert_of(name, shared)
    with jax.enable_x64(True):
        objective = built(plan, **of_student, **of_objective)
        (found, metrics), gradient = evaluated(objective, shared, segment_of(expert))
    wanted = value(expert, shared, plan)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    assert 1e-6 < wanted < 10 and metrics["dead"] == 0
    np.testing.assert_allclose(metrics["rate"], shared.learning_rate)  # not the scheduled one
    if name == "nearest":
        path = walk(expert[0], shared, plan)
        assert int(metrics["steps"]) == 1 + np.abs(path[1:] - expert[-1]).sum(axis=1).argmin() == 2
    close(gradient, differences(lambda shared: value(expert, shared, plan), shared))


def test_the_nearest_step_is_the_last_of_equals_and_one_that_there_is():
    """At a rate of zero all are equal; at one without bounds only the first step is a number."""
    shared = jax.tree.map(np.float32, arrays())
    expert = expert_of("endpoint", shared)
    at = slopes(built(loss=nearest()), segment_of(expert))
    still = shared._replace(learning_rate=np.float32(0.0))
    (value, metrics), gradient = at(still)
    assert metrics["steps"] == STEPS
    np.testing.assert_allclose(value, 1.0, rtol=1e-6)
    wanted = differences(lambda shared: at_step(STEPS)(expert, shared, WHOLE), still)
    np.testing.assert_allclose(gradient.learning_rate, wanted.learning_rate, rtol=1e-3)
    assert at(shared._replace(learning_rate=np.float32(1e30)))[0][1]["steps"] == 1


def test_the_two_pass_rule_is_that_of_tesla():
    """Every step gets (-2 rate / D0) (theta_N - target)^T dg_i, theta_i held fixed."""
    shared = arrays()
    expert = expert_of("endpoint", shared)
    with jax.enable_x64(True):
        _, gradient = evaluated(built(BATCHES, adjoint="two_pass"), shared, segment_of(expert))
    path, size = walk(expert[0], shared, BATCHES), ((expert[0] - expert[-1]) ** 2).sum()
    total = sum(slope(theta, shared, rows) for theta, rows in zip(path, BATCHES))
    gap = expert[0] - expert[-1] - shared.learning_rate * total

    def value(other):
        kept = sum(slope(theta, other, rows) for theta, rows in zip(path, BATCHES))
        return -2 * shared.learning_rate / size * gap @ kept

    close(gradient, differences(value, shared)._replace(learning_rate=-2 / size * total @ gap))
    exact = differences(lambda shared: to_the_end(expert, shared, BATCHES), shared)
    bias = np.abs(np.asarray(gradient.images) - exact.images).max()
    assert bias > 1e-2 * np.abs(exact.images).max()


@pytest.mark.parametrize("loss", [None, nearest(), waypoints()],
                         ids=["endpoint", "nearest", "waypoints"])
def test_f35_a_dead_expert_costs_nothing_and_is_counted(loss):
    """Its epochs are one: no distance to be relative to."""
    shared = jax.tree.map(np.float32, arrays())
    dead = np.repeat(expert_of("endpoint", shared)[:1], SPAN + 1, axis=0)
    (value, metrics), gradient = evaluated(built(loss=loss), shared, segment_of(dead))
    assert value == 0 and metrics["dead"] == 1
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf))


def test_relabelled_students_learn_what_the_target_says():
    shared = arrays()
    expert = expert_of("endpoint", shared)
    with jax.enable_x64(True):
        (found, _), gradient = evaluated(built(relabel=True), shared, segment_of(expert))
    last = tree(expert[-1])
    logits = reference.hidden(last, shared.images) @ last["head"]["kernel"] + last["head"]["bias"]
    labels = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    told = shared._replace(labels=labels)
    np.testing.assert_allclose(found, to_the_end(expert, told, WHOLE), rtol=1e-10)
    wanted = differences(lambda shared: to_the_end(expert, shared, WHOLE), told)
    close(gradient, wanted._replace(labels=np.zeros_like(labels)), 1e-6)


def test_waypoints_need_points_and_steps_enough():
    shared = jax.tree.map(np.float32, arrays())
    segment = segment_of(expert_of("endpoint", shared))
    with pytest.raises(ConfigError, match="no waypoints.*waypoints=True"):
        evaluated(built(loss=waypoints()), shared, segment._replace(between=()))
    with pytest.raises(ConfigError, match="2 steps cannot pass 3 waypoints.*3 steps or more"):
        evaluated(built(WHOLE[:2], loss=waypoints()), shared, segment)
    with pytest.raises(ConfigError, match="'adaptive'"):
        waypoints("adaptiv")
