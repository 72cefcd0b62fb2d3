"""The likeliest slips at the doors of the library are told before anything is made or compiled."""

from __future__ import annotations

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax import backend
from dd_jax.distill import distillation
from dd_jax.distill.run import run_options
from dd_jax.errors import ConfigError, DataError, DDJaxError, SetFileError
from dd_jax.evaluate import Protocol
from dd_jax.types import Objective, Split
from tests.laws import members
from tests.methods import tiny
from tests.store.tiny_sets import tiny as tiny_set

TOY = members.toy_data()
X, Y = np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0, 1]
KEY = jax.random.key(0)


def a_set():
    return tiny_set()


def a_recipe():
    return tiny.recipe("dm")


SLIPS = {
    "a method's name for its plan": (
        lambda: dd.distill("dm", TOY), "plan is 'dm', expected a Plan.*methods.plan..dm., data"),
    "arrays for data": (lambda: dd.distill(a_recipe(), (X, Y)), "data is a tuple.*from_arrays"),
    "arrays for data of a plan": (lambda: dd.methods.plan("dm", (X, Y)), "data is a tuple"),
    "arrays for data of a recipe": (lambda: dd.methods.recipe("dm", X), "data is an? ndarray"),
    "arrays for data of stages": (
        lambda: dd.distill.progressive(a_recipe(), (X, Y), stages=2), "data is a tuple"),
    "a recipe for a function of blocks": (
        lambda: dd.distill.boosted(a_recipe(), TOY, blocks=2), "build is a Recipe"),
    "a number for a method": (lambda: dd.methods.plan(3, TOY), "method is 3, expected its name"),
    "a list for a protocol": (lambda: dd.methods.plan("dm", TOY, protocol=["cpu"]), "protocol of"),
    "a number for a folder": (lambda: dd.distill(a_recipe(), TOY, workdir=3), "workdir is 3"),
    "a number for artefacts": (lambda: dd.distill(a_recipe(), TOY, artefacts=3),
                               "artefacts is 3"),
    "a function for callbacks": (lambda: dd.distill(a_recipe(), TOY, callbacks=print),
                                 "callbacks is a.*callbacks=.f"),
    "no number of seconds": (lambda: dd.distill(a_recipe(), TOY, save_seconds=None),
                             "save_seconds is None"),
    "options of stages": (lambda: dd.distill.progressive(a_recipe(), TOY, stages=2, save_every=0),
                          "save_every is 0"),
    "a split for test data": (
        lambda: dd.evaluate(a_set(), Split(TOY, TOY), protocol=Protocol("x")),
        "test is a Split.*data.test"),
    "a name for a protocol": (lambda: dd.evaluate(a_set(), TOY, protocol="cpu"),
                              "protocol is 'cpu', expected a Protocol"),
    "arrays for a set": (lambda: dd.evaluate((X, Y), TOY), "the set is a tuple"),
    "test data for a split": (
        lambda: dd.evaluate.evaluate_random(TOY, normaliser=None, protocol=Protocol("x"), ipc=1,
                                            key=1), "data is a RealData.*split_of"),
    "a raw key": (lambda: dd.evaluate(a_set(), TOY, protocol=Protocol("x"), key="1"),
                  "key is '1', expected an integer seed"),
    "save, swapped": (lambda: dd.save(a_set(), "x.safetensors"), "call save.path, set"),
    "load of a set": (lambda: dd.load(a_set()), "a path is a DistilledSet"),
    "export of a path": (lambda: dd.store.export("x", "npz", "y"), "the set is 'x'"),
    "a NaN weight": (lambda: dd.weighted_sum([Objective(lambda *a: 0)], [float("nan")]),
                     "the weight nan, expected a number that is finite"),
    "a loss for an objective": (lambda: dd.weighted_sum([lambda *a: 0], [1.0]),
                                "an objective is a function"),
    "one objective for several": (lambda: dd.weighted_sum(Objective(lambda *a: 0), 1.0),
                                 "objectives is an? Objective, expected a list"),
    "a plan for a recipe": (lambda: dd.distill.flipped(tiny.plan("dm")), "plan.then.change"),
    "no place for an export": (lambda: dd.store.export(a_set(), "npz", None), "the place is None"),
    "no name for a class": (lambda: dd.data.from_arrays(X, Y, class_names=["a", None]),
                            "a class name is None"),
    "a set for real data": (lambda: dd.data.load(X), "source is an? ndarray.*from_arrays"),
    "parts for pairs": (lambda: dd.data.split_from_arrays(TOY, TOY), "train is a RealData"),
    "a text for names": (lambda: dd.data.from_arrays(X, Y, class_names="ab"), "names is 'ab'"),
    "a set for names": (lambda: dd.data.from_arrays(X, Y, class_names={"a", "b"}), "is a set"),
    "odd keys of names": (lambda: dd.data.from_arrays(X, Y, class_names={1: "a", 2: "b"}),
                          "has the keys .*expected 0 to 1"),
    "an unknown layout": (lambda: dd.data.from_arrays(X, Y, layout="CHW"), "layout is 'CHW'"),
    "images of two sizes": (lambda: dd.data.from_arrays([X[0], X[0, :4]], [0, 1]),
                            "images are a list that makes no array"),
    "labels of two depths": (lambda: dd.data.from_arrays(X[:2], [0, [1]]), "labels are a list"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_told(name):
    call, said = SLIPS[name]
    with pytest.raises((ConfigError, DataError), match=said):
        call()


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70, True])
def test_seeds_have_one_range(seed):
    for call in (lambda: dd.distill(a_recipe(), TOY, key=seed),
                 lambda: dd.evaluate(a_set(), TOY, protocol=Protocol("x"), key=seed),
                 lambda: dd.data.stratified_rows(np.array(Y), seed=seed),
                 lambda: tiny.plan("dd", network_seed=seed)):
        with pytest.raises(ConfigError, match="expected (one between|an integer seed)"):
            call()


def test_keys_and_seeds_are_one():
    assert (jax.random.key_data(backend.as_key(2**32 - 1))
            == jax.random.key_data(jax.random.key(2**32 - 1))).all()
    assert backend.as_key(KEY) is KEY and backend.as_key(np.int64(0)) == KEY


def test_options_of_a_run_are_checked_at_once():
    assert run_options(log_every=3, callbacks=[print]).log_every == 3
    with pytest.raises(ConfigError, match="a callback is 3"):
        run_options(callbacks=[3])


def test_what_names_say_is_taken_in_label_order():
    for names in ({1: "dog", 0: "cat"}, ["cat", "dog"], (n for n in ("cat", "dog"))):
        assert dd.data.from_arrays(X, Y, class_names=names).spec.class_names == ("cat", "dog")


def test_the_order_of_axes_can_be_said():
    low = np.zeros((2, 3, 32, 8), np.uint8)
    with pytest.raises(DataError, match="looks like .N, C, H, W.*layout='NHWC'"):
        dd.data.from_arrays(low, [0, 1])
    assert dd.data.from_arrays(low, [0, 1], layout="NHWC").spec.shape == (3, 32, 8)
    assert dd.data.from_arrays(low, [0, 1], layout="NCHW").spec.shape == (32, 8, 3)


def with_rows(rows):
    recipe = a_recipe()
    return dataclasses.replace(recipe, objective=recipe.objective._replace(
        sample=lambda data, state, key: rows,
        loss=lambda synthetic, state, batch, key: (jnp.mean(synthetic.images**2), {})))


@pytest.mark.parametrize("on_device", [True, False])
def test_rows_that_are_none_are_refused(on_device, toy, toy_on_host):
    """A device would clamp them to the last row."""
    real = toy if on_device else toy_on_host
    with pytest.raises(ConfigError, match="rows of float32, expected int32"):
        dd.distill(with_rows(jnp.ones(1)), real, show_progress=False)
    with pytest.raises(ConfigError, match="asks for 1 rows that the data does not have.*0 to 63"):
        dd.distill(with_rows(jnp.array([3, 10**6])), real, show_progress=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_child_is_refused_and_does_not_hang():
    backend.refuse_forked()  # this process has computed
    child = os.fork()
    if child == 0:
        code = 1
        try:
            dd.data.from_arrays(X, Y)
        except ConfigError as error:
            code = 0 if "spawn" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)


@pytest.mark.parametrize("name", ["frepo", "rcig", "rfad", "dc", "idm", "kip", "m3d", "rat_bptt"])
def test_states_and_batches_have_the_library_s_dtypes(name, toy):
    """Whatever JAX is told to take for what it is not told; nothing is compiled."""
    def state():
        d = distillation(tiny.recipe(name))
        like = jax.eval_shape(d.init, jax.random.key(0), toy)
        rows = jax.eval_shape(d.sample, like, toy)
        batch = jax.eval_shape(lambda r: d.fetch(toy, r), rows)
        return shapes((like, rows, batch, jax.eval_shape(d.step, like, batch)))

    narrow = state()
    with jax.enable_x64(True):
        assert state() == narrow


def test_a_run_under_x64_is_the_same(toy):
    plain = dd.distill(tiny.recipe("dm", steps=2), toy, show_progress=False)
    with jax.enable_x64(True):
        wide = dd.distill(tiny.recipe("dm", steps=2), toy, show_progress=False)
        tested = dd.evaluate(wide, toy, seeds=1)  # by the set's own protocol
    np.testing.assert_array_equal(plain.synthetic.images, wide.synthetic.images)
    assert 0 <= tested.mean <= 1


def test_classes_in_another_order_are_refused_and_other_names_told():
    made = a_set()
    names, shape = made.spec.class_names, made.spec.shape
    images, labels = np.zeros((len(names), *shape), np.uint8), np.arange(len(names))

    def data(names):
        return dd.data.from_arrays(images, labels, class_names=names)

    protocol = Protocol("x").varied(network="mlp", width=2, epochs=1)
    with pytest.raises(SetFileError, match="class 0 of the set is .*another order"):
        dd.evaluate.check(made, data(names[::-1]), protocol=protocol)
    with pytest.warns(UserWarning, match="are not called as those of the set"):
        dd.evaluate.check(made, data([f"{n}!" for n in names]), protocol=protocol)


@pytest.mark.parametrize("path", ["x" * 300, "x" * 300 + "/y", "a\0b"])
def test_a_path_that_cannot_be_is_told(path):
    for call in (lambda: dd.load(path), lambda: dd.data.load("./" + path),
                 lambda: dd.distill(a_recipe(), TOY, workdir=path),
                 lambda: dd.methods.get(path + ".py"),
                 lambda: dd.store.export(a_set(), "npz", path),
                 lambda: dd.store.artefacts.ArtefactStore(path).entries()):
        with pytest.raises(DDJaxError, match="cannot be (used|read)"):
            call()
