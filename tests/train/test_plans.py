"""Which images each step of an inner loop takes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.train import batch_plan, class_rows, permuted, stored_order, student
from tests.laws import members

NETWORK = nets.mlp(members.SPEC, width=2, depth=2)


@pytest.mark.parametrize("classes,each,per_class", [(3, 4, 1), (3, 4, 2), (2, 6, 3)])
def test_the_stored_order_is_that_of_its_formula(classes, each, per_class):
    plan = stored_order(classes, per_class)(None, classes * each, 9)
    batches = each // per_class
    for s in range(9):
        wanted = [c * each + (s % batches) * per_class + j
                  for c in range(classes) for j in range(per_class)]
        assert plan[s].tolist() == wanted
    assert plan.dtype == jnp.int32


def test_rows_of_classes_are_distinct_and_drawn_alike():
    classes, each, per_class, steps = 3, 5, 2, 1500
    plan = np.asarray(jax.jit(lambda key: class_rows(classes, per_class)(key, 15, steps))(
        jax.random.key(0)))
    assert plan.shape == (steps, classes * per_class) and plan.dtype == np.int32
    np.testing.assert_array_equal(plan // each, np.tile(np.repeat(range(3), 2), (steps, 1)))
    assert all(len(set(rows)) == len(rows) for rows in plan)
    counts, mean = np.bincount(plan.ravel(), minlength=15), steps * per_class / each
    # Drawn without replacement: the variance of a row is mean (1 - 2/5); 12 degrees of freedom.
    assert ((counts - mean) ** 2 / (mean * 0.6)).sum() * 0.8 < 32.9
    np.testing.assert_array_equal(
        class_rows(classes, per_class)(jax.random.key(0), 15, 7), plan[:7])
    assert not np.array_equal(class_rows(3, 2)(jax.random.key(1), 15, 7), plan[:7])


def test_some_classes_in_each_step():
    plan = np.asarray(class_rows(4, 1, chosen=2)(jax.random.key(0), 12, 400))
    seen = plan // 3
    assert seen.shape == (400, 2) and (seen[:, 0] < seen[:, 1]).all()
    assert np.bincount(seen.ravel(), minlength=4).min() > 150
    assert set(plan.ravel()) == set(range(12))


@pytest.mark.parametrize("plan", [class_rows(2, 2), class_rows(2, 9), stored_order(2, 2),
                                  permuted(None), permuted(4)],
                         ids=["all rows", "more rows", "one batch", "none", "as large"])
def test_the_whole_set_is_not_gathered(plan):
    assert plan(jax.random.key(0), 4, 3) is None


def test_permuted_batches_are_those_of_batch_plan():
    key = jax.random.key(3)
    np.testing.assert_array_equal(permuted(3)(key, 7, 5), batch_plan(key, 7, 3, 5))


def test_every_pass_has_an_order_of_its_own():
    passes = np.asarray(batch_plan(jax.random.key(3), 24, 6, 12)).reshape(3, 24)
    assert all(sorted(rows) == list(range(24)) for rows in passes.tolist())
    assert len({tuple(rows) for rows in passes.tolist()}) == 3


def test_a_student_takes_its_plan_and_knows_its_place():
    learner = student(NETWORK, steps=3, plan=stored_order(2, 1))
    inputs = learner.plan(jax.random.key(0), 4)
    assert inputs.rows.tolist() == [[0, 2], [1, 3], [0, 2]]
    assert inputs.position.tolist() == [0, 1, 2]
    keys = [student(NETWORK, steps=3, shared_draw=shared).plan(jax.random.key(0), 4).key
            for shared in (False, True)]
    assert [len(np.unique(jax.random.key_data(k), axis=0)) for k in keys] == [3, 1]


@pytest.mark.parametrize("build,said", [
    (lambda: class_rows(0, 1), "classes is 0"),
    (lambda: class_rows(2, 0), "per_class of a step is 0"),
    (lambda: class_rows(2, 1, chosen=3), "chosen is 3 of 2.*chosen=2"),
    (lambda: class_rows(2, 1)(jax.random.key(0), 5, 1), "5 images, which 2 classes"),
    (lambda: stored_order(2, 2)(None, 6, 1), "3 images of a class.*batches of 2"),
    (lambda: stored_order(2, True), "per_class of a batch is True"),
    (lambda: permuted(0), "batch_size is 0"),
    (lambda: student(NETWORK, steps=2, batch_size=2, plan=permuted(2)), "batch_size=2 and a plan"),
])
def test_wrong_input_is_refused(build, said):
    with pytest.raises(ConfigError, match=said):
        build()
