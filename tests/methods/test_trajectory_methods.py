"""MTT, FTD, TESLA, DATM, ATT, AST and PDD: what their papers set, and what their steps move.

Where something is trained, the networks are perceptrons that look like ConvNets.
"""

from __future__ import annotations

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax import methods
from dd_jax.data import normalise
from dd_jax.distill import flipped, grown, needs
from dd_jax.distill.progressive import next_stage
from dd_jax.errors import CheckpointError, ConfigError
from dd_jax.methods.families import trajectory
from dd_jax.methods.frame import Site
from dd_jax.objectives.trajectory_loss import balanced_rates
from dd_jax.train.experts import unflatten
from dd_jax.types import Objective
from tests.laws import members
from tests.methods import tiny

NAMES = ("mtt", "ftd", "tesla", "datm", "att", "ast", "pdd")


def run(plan, **options):
    metrics = []
    done = dd.distill(plan, members.toy_data(), key=0, show_progress=False, log_every=1,
                      callbacks=[lambda step, m: metrics.append(m)], **options)
    return done.synthetic, metrics


@pytest.fixture(scope="module", autouse=True)
def perceptrons():
    """In place of ConvNets, which take longer to compile; MTT's experts serve all methods."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Site, "convnet", lambda at: members.one_convolution(at.settings.width))
        patch.setattr(needs, "check_trained", lambda *args: None)
        yield


@pytest.fixture(scope="module")
def mtt(tmp_path_factory):
    """A whole run, which trains its experts into the store beside it: (store, set, metrics)."""
    folder = tmp_path_factory.mktemp("mtt")
    return folder / "store", *run(tiny.plan("mtt"), workdir=folder / "run",
                                  artefacts=folder / "store")


@pytest.fixture(scope="module")
def experts(mtt):
    folder, = (path for path in mtt[0].glob("experts*") if path.is_dir())
    return str(folder)


@pytest.mark.parametrize("name", NAMES)
def test_some_steps_lower_the_distance(name, mtt, request):
    if name == "mtt":
        _, synthetic, metrics = mtt
    else:
        synthetic, metrics = run(tiny.recipe(name, experts=request.getfixturevalue("experts")))
    losses = [m["loss"] for m in metrics]
    assert np.mean(losses[3:]) < 0.8 * np.mean(losses[:3]), losses
    assert metrics[0]["rate"] == pytest.approx(0.02 if name == "ast" else 0.1)
    assert synthetic.learning_rate > 0
    assert len({m["rate"] for m in metrics}) == len(metrics)  # it is learned
    if name == "att":
        assert all(m["steps"] in range(1, 5) for m in metrics)
    if name != "datm":
        np.testing.assert_array_equal(synthetic.labels, np.eye(2))


def test_experts_are_trained_into_the_store(mtt, experts):
    found = dd.store.open_trajectories(experts)
    assert (len(found.experts), found.epochs) == (2, 3)
    told = found.description["training"]
    assert (told["batch_size"], told["learning_rate"]) == (16, 0.1)
    assert told["notes"]["augmentation"] == "none" and told["rule"] is None


@pytest.mark.parametrize("name,told", [
    ("mtt", {}),
    ("tesla", {}),
    ("att", dict(batch_size=512)),
    ("ftd", dict(rule={"name": "sharpness_aware", "rho": 0.01, "a": 0.3})),
    ("datm", dict(rule={"name": "sharpness_aware", "rho": 0.01, "a": 0.3}, epochs=100)),
    ("pdd", {}),
    ("ast", dict(momentum=0.9, weight_decay=1e-3, restart=27,
                 learning_rate=[0.003] * 27 + [0.0018] * 23)),
])
def test_the_official_training_of_experts(name, told, monkeypatch, tmp_path):
    """What `train_experts` is asked for; nothing is trained."""
    asked = {}

    def asked_for(folder, network, data, **options):
        asked.update(options, name=network.name)
        raise InterruptedError

    monkeypatch.setattr(needs, "train_experts", asked_for)
    plan = methods.plan(name, members.toy_data(), ipc=10, depth=1)
    with pytest.raises(InterruptedError):
        plan.needs["experts"].make(members.toy_data(), jax.random.key(0), tmp_path,
                                   {"normaliser": None})
    rule = asked["rule"] and dict(asked["rule"].settings) if "rule" in asked else None
    if name == "ast":
        assert (rule["name"], rule["penalty"]) == ("smooth", 2.0)
        np.testing.assert_allclose(rule["ramp"], np.arange(0.5, 1.0, 0.05))
        rule = None
    wanted = dict(epochs=50, batch_size=256, learning_rate=0.01, momentum=0.0, weight_decay=0.0,
                  count=100, rule=None) | told
    found = {key: asked.get(key, 0.0) for key in wanted} | {"rule": rule}
    assert asked["augmentation"] is not None
    np.testing.assert_allclose(found.pop("learning_rate"), wanted.pop("learning_rate"))
    assert found == wanted


@pytest.mark.parametrize("workdir", [False, True])
def test_a_silent_run_trains_its_experts_silently(workdir, monkeypatch, tmp_path):
    def asked_for(folder, network, data, *, show_progress, **options):
        assert show_progress is False
        raise InterruptedError

    monkeypatch.setattr(needs, "train_experts", asked_for)
    with pytest.raises(InterruptedError):
        dd.distill(tiny.plan("mtt"), members.toy_data(), show_progress=False,
                   artefacts=tmp_path / "store", workdir=tmp_path / "run" if workdir else None)


# N / M / T_max / rate of images / rate of the rate / first rate, and what else is the method's own.
OFFICIAL = [
    ("mtt", 1, 50, 2, 2, 100, 1e-7, 0.01, dict(steps=5000, batch_size=None, momentum=0.5)),
    ("mtt", 10, 30, 2, 20, 100, 1e-5, 0.001, {}),
    ("mtt", 50, 30, 2, 40, 1000, 1e-5, 0.001, {}),
    ("ftd", 1, 50, 2, 2, 100, 1e-7, 0.01, dict(share=0.3, average=0.9999, radius=0.01)),
    ("ftd", 10, 30, 2, 20, 100, 1e-5, 0.001, dict(share=0.3, average=0.9995)),
    ("ftd", 50, 30, 2, 40, 1000, 1e-5, 0.01, dict(share=1.0, average=0.999)),
    ("tesla", 1, 50, 2, 5, 500, 1e-7, 0.01, dict(steps=10_000, adjoint="two_pass")),
    ("datm", 1, 80, 2, 4, 100, 1e-7, 0.01, dict(
        batch_size=10, label_rate=5, threshold=1.1, min_start=0, first_max_start=None)),
    ("datm", 10, 80, 2, 20, 100, 1e-5, 0.01, dict(
        batch_size=100, label_rate=2, threshold=1, min_start=0, first_max_start=10,
        growth_steps=1000, steps=10_000, expert_epochs=100)),
    ("datm", 50, 80, 2, 40, 1000, 1e-5, 0.01, dict(
        batch_size=500, label_rate=2, threshold=1, min_start=0, first_max_start=20,
        growth_steps=2000)),
    ("datm", 500, 40, 2, 60, 50, 1e-5, 0.01, dict(
        batch_size=1000, label_rate=10, threshold=1, min_start=40, first_max_start=None)),
    ("datm", 1000, 100, 2, 60, 50, 1e-5, 0.01, dict(batch_size=1000, label_rate=10, min_start=40)),
    ("att", 1, 80, 4, 2, 100, 1e-7, 0.01, dict(average=0.9999, steps=6000)),
    ("att", 10, 30, 2, 20, 10_000, 1e-4, 0.01, dict(average=0.9999, steps=60_000)),
    ("att", 50, 50, 2, 40, 100, 1e-5, 0.001, dict(average=0.999, steps=1_000_000)),
    ("ast", 10, 30, 2, 20, 100, 1e-6, 0.01, dict(
        shake=1.0, balanced=True, representative_start=True, student_momentum=0.9, steps=5000)),
    ("pdd", 2, 50, 2, 5, 1000, 1e-7, 0.01, dict(steps=5000, batch_size=None)),
    ("pdd", 10, 30, 2, 15, 1000, 1e-5, 0.01, {}),
]


@pytest.mark.parametrize("row", OFFICIAL, ids=lambda row: f"{row[0]}-{row[1]}")
def test_official_settings(row):
    name, ipc, inner, span, most, image_rate, rate_rate, rate, own = row
    config = dataclasses.asdict(methods.preset(name, "official", ipc))
    wanted = dict(inner_steps=inner, span=span, max_start=most, image_rate=image_rate, rate=rate,
                  rate_rate=rate_rate, augmentation="dsa", width=128, evaluation_width=128,
                  expert_count=100, **own)
    assert {key: config[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_the_official_test_of_a_set(name):
    """A fresh network at the set's rate, dropped once after half of 1001 epochs."""
    walks = members.Walks(members.one_convolution(128), experts=1, epochs=25)
    evaluation = methods.plan(name, members.toy_data(), depth=1).build(
        {"experts": walks}).evaluation
    assert evaluation == evaluation.varied(
        learned_rate=True, optimizer="sgd", momentum=0.9, weight_decay=5e-4, schedule="step_drop",
        epochs=1503 if name == "pdd" else 1001, batch_size=128 if name == "datm" else 256,
        augmentation="dsa", network="convnet", width=128, depth=1)


@pytest.mark.parametrize("protocol", ["official", "cpu"])
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_asks_for_segments_that_its_experts_have(name, protocol):
    for ipc in (1, 2, 10, 50, 500, 1000):
        config = methods.preset(name, protocol, ipc)
        assert getattr(config, "min_start", 0) < config.max_start, ipc
        assert config.max_start - 1 + config.span <= config.expert_epochs, ipc
        assert config.inner_steps >= config.span
        first = getattr(config, "first_max_start", None)
        assert first is None or config.min_start < first <= config.max_start


def test_ast_balances_early_and_late_segments():
    """log_5(t - h + 8) from the middle on, one over log_5(h - t + 8) before."""
    factor = balanced_rates(7)
    for epoch in range(7):
        grown = np.log(abs(epoch - 3) + 8) / np.log(5)
        wanted = grown if epoch >= 3 else 1 / grown
        np.testing.assert_allclose(factor(jnp.int32(epoch)), wanted, rtol=1e-6)


@pytest.mark.parametrize("name,changes,wanted", [
    ("ast", {}, dict(shake=0.01, starts=(0, 2, None, 0))),
    ("ast", dict(balanced=False, shake=0.0), dict(shake=0.0, rate_schedule=None)),
    ("datm", dict(min_start=1, max_start=3, first_max_start=2, growth_steps=9),
     dict(starts=(1, 3, 2, 9))),
    ("tesla", dict(soft_labels=True), dict(relabel=True)),
    ("mtt", {}, dict(starts=(0, 2, None, 0))),
])
def test_the_objective_is_given_the_settings(name, changes, wanted, experts, monkeypatch):
    asked, module = {}, sys.modules[methods.get(name).settings.__module__]

    def recorded(learner, segments, **options):
        asked.update(options, learner=learner, segments=segments)
        return Objective(never)

    for place in (module, trajectory):
        monkeypatch.setattr(place, "trajectory_matching", recorded, raising=False)
    tiny.recipe(name, experts=experts, **{"span": 1, "max_start": 2, **changes})
    assert {key: asked[key] for key in wanted} == wanted
    assert asked["learner"].steps == 4 and asked["segments"].span == 1
    assert asked["segments"].waypoints == (name == "ast")
    if name == "ast" and changes.get("balanced", True):
        found = asked["rate_schedule"](jnp.int32(0))
        np.testing.assert_allclose(found, balanced_rates(2)(jnp.int32(0)))


def test_datm_stands_still_above_its_threshold(experts):
    """No loss is at most zero: images, labels and rate are those of the start, to the bit."""
    recipe = tiny.recipe("datm", experts=experts, threshold=0.0, steps=3)
    data = members.toy_data()
    d = dd.distillation(recipe)
    first = jax.jit(d.init)(jax.random.key(0), data)
    state, step = first, jax.jit(d.step)
    for _ in range(3):
        state, metrics = step(state, d.fetch(data, d.sample(state, data)))
        assert metrics["update_norm"] == 0 and metrics["loss"] > 0 and metrics["grad_norm"] > 0
    jax.tree.map(np.testing.assert_array_equal, state.params, first.params)
    counts = [x for x in jax.tree.leaves(state.optimizer) if jnp.issubdtype(x.dtype, jnp.integer)]
    momenta = [x for x in jax.tree.leaves(state.optimizer) if jnp.issubdtype(x.dtype, jnp.inexact)]
    assert [int(c) for c in counts] == [3, 3, 3]  # images, labels and rate
    assert len(momenta) == 3 and not any(np.any(m) for m in momenta)


def test_tesla_s_soft_labels_are_those_of_an_expert_at_the_end(experts):
    recipe = tiny.recipe("tesla", experts=experts, soft_labels=True)
    assert recipe.labels.kind == "probabilities"
    data = members.toy_data()
    images = normalise(recipe.normaliser, data.images[:2])
    done = jax.jit(lambda: recipe.finalise(dd.SyntheticSet(images, jnp.eye(2), jnp.float32(0.1)),
                                           data, jax.random.key(0)))()
    network = members.one_convolution(8)
    restore = unflatten(jax.eval_shape(network.init, jax.random.key(0))["params"])
    targets = dd.store.open_trajectories(experts).read([0, 1], [2, 2])
    said = [jax.nn.softmax(network.apply({"params": restore(jnp.asarray(t))}, images).logits)
            for t in targets]
    assert min(np.abs(done.labels - s).max() for s in said) < 1e-5
    assert tiny.recipe("tesla", experts=experts).finalise is None


def first_set():
    return members.start(labels="one_hot")._replace(learning_rate=jnp.float32(0.3))


def never(*args):
    raise AssertionError("used")


def either(name, ready, store, **changes):
    """(plan, what it needs), with experts of the store or with the same in a folder."""
    folder = next(path for path in store.glob("experts*") if path.is_dir())
    plan = tiny.plan(name, experts=str(folder) if ready else None, **changes)
    return plan, {"experts": dd.store.open_trajectories(folder)}


READY = pytest.mark.parametrize("ready", [False, True], ids=["of the store", "in a folder"])


@READY
def test_later_stages_have_all_variations_of_the_first(ready, mtt, monkeypatch):
    def counting(learner, segments, **options):
        return Objective(lambda shown, *args: (shown.images.shape[0], {}), never, never, never)

    monkeypatch.setattr(trajectory, "trajectory_matching", counting)
    plan, have = either("mtt", ready, mtt[0])
    plan = plan.then(flipped).then(lambda recipe: dataclasses.replace(recipe, steps=5))
    recipe, first = plan.build(have), first_set()
    size = first.images.shape[0]
    assert recipe.objective.loss(first, (), None, None)[0] == 2 * size
    later = next_stage(plan, recipe, [first], members.SPEC, 1, 2)
    assert later.later is not None
    experts, done = later.needs["experts"], later.build(have)
    assert (done.steps, done.settings["stage"], done.settings["flipped"]) == (5, 2, True)
    # Trained anew, from networks that no other stage starts from.
    assert experts.make is not None and experts.settings["start"] == done.settings["earlier"]
    # Both stages and their mirror images, once.
    state = types.SimpleNamespace(images=first.images, labels=first.labels, inner=())
    assert done.objective.loss(first, state, None, None)[0] == 2 * 2 * size


@READY
def test_what_is_replaced_by_hand_stays_in_later_stages(ready, mtt):
    plan, have = either("ast", ready, mtt[0])
    changed = plan.then(lambda recipe: dataclasses.replace(recipe, start=never)).build(have)
    assert changed.start is never and changed.objective.variants
    assert changed.objective.init(None, first_set()).step == 0
    objective = Objective(never)
    plan = plan.then(lambda recipe: dataclasses.replace(recipe, start=never, objective=objective))
    for one in (plan, plan.later(lambda network: network, "again")):
        recipe = one.build(have)
        assert recipe.start is never and recipe.objective is objective


@READY
def test_a_grown_set_starts_from_the_earlier_one_and_new_images_of_the_method(ready, mtt):
    data, earlier, key = members.toy_data(), first_set(), jax.random.key(0)
    each = earlier.images.shape[0] // members.CLASSES
    plan, have = either("ast", ready, mtt[0], ipc=each + 1)
    found = plan.then(lambda recipe: grown(recipe, earlier, share=0.25)).build(have)
    assert found.settings["share"] == 0.25
    start, plain = (jax.jit(one.start)(data, key) for one in (found, plan.build(have)))
    for part in ("images", "labels"):
        new, old, own = (np.asarray(getattr(one, part)).reshape(
            members.CLASSES, -1, *getattr(one, part).shape[1:]) for one in (start, earlier, plain))
        np.testing.assert_array_equal(new[:, :each], old)
        np.testing.assert_array_equal(new[:, each:], own[:, each:])
    assert start.learning_rate == earlier.learning_rate
    params = {"images": jnp.ones(start.images.shape)}
    one = found.optimizer["images"]
    moved = np.asarray(one.update(params, one.init(params), params)[0]["images"])
    moved = moved.reshape(members.CLASSES, each + 1, -1)
    np.testing.assert_allclose(moved[:, :each], 0.25 * moved[0, -1, 0])


@pytest.mark.parametrize("name,changes,offered", [
    ("mtt", {}, ["recursive", "two_pass"]),
    ("mtt", dict(adjoint="recursive"), ["two_pass"]),
    ("ast", {}, ["recursive"]),
    ("tesla", {}, []),
    ("tesla", dict(adjoint="checkpointed"), ["two_pass"]),
])
def test_only_what_needs_less_memory_is_offered_as_a_variant(name, changes, offered, experts,
                                                            monkeypatch):
    recipe, asked = tiny.recipe(name, experts=experts, **changes), []
    assert list(recipe.objective.variants) == [f"adjoint={other!r}" for other in offered]
    student = trajectory.Trajectories.student

    def recorded(self, at, adjoint):
        asked.append(adjoint)
        return student(self, at, adjoint)

    monkeypatch.setattr(trajectory.Trajectories, "student", recorded)
    for variant in recipe.objective.variants.values():
        assert isinstance(variant(), Objective)
    assert asked == offered


@pytest.mark.parametrize("name,changes,said", [
    ("mtt", dict(max_start=9), "max_start=2"),
    ("mtt", dict(span=4), "span is 4.*span=3"),
    ("datm", dict(min_start=1), "max_start is 1"),
    ("datm", dict(max_start=2, first_max_start=3, growth_steps=5), "begins at 3 and ends at 2"),
], ids=lambda value: None if isinstance(value, str) else "-".join(map(str, value)))
def test_segments_that_given_experts_do_not_have_are_refused(name, changes, said, experts):
    with pytest.raises(ConfigError, match=said):
        tiny.recipe(name, experts=experts, **changes)


@pytest.mark.parametrize("changes,said", [(dict(width=3), "the one asked for has"),
                                          (dict(normaliser="zca"), "normaliser")])
def test_experts_of_another_kind_are_refused(changes, said, experts):
    with pytest.raises(CheckpointError, match=said):
        tiny.recipe("mtt", experts=experts, **changes)
