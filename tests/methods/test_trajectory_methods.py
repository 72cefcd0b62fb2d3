"""MTT, FTD, TESLA, DATM, ATT and AST: what their papers set, and what their steps move.

Where something is trained, the networks are perceptrons that look like ConvNets.
"""

from __future__ import annotations

import dataclasses
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax import methods
from dd_jax.data import normalise
from dd_jax.distill import flipped, grown
from dd_jax.distill.progressive import next_stage
from dd_jax.errors import CheckpointError, ConfigError
from dd_jax.methods import ast, trajectory, unrolling
from dd_jax.methods.record import preset
from dd_jax.train import unflatten
from dd_jax.types import Objective
from tests.laws import members

NAMES = ("mtt", "ftd", "tesla", "datm", "att", "ast")
SMALL = dict(width=8, depth=1, steps=6, inner_steps=4, max_start=1, span=2, rate=0.1,
             image_rate=5.0, rate_rate=1e-3, augmentation="none", batch_size=None,
             expert_count=2, expert_epochs=3, expert_batch_size=16, expert_rate=0.1,
             evaluation_width=2, evaluation_epochs=2)
OWN = {"datm": dict(label_rate=1.0, threshold=10.0),
       "ast": dict(shake=0.01, rate=0.02, rate_rate=1e-5, image_rate=20.0)}


def build(name, experts=None, *, ipc=1, **changes):
    settings = {**SMALL, **OWN.get(name, {}), **changes}
    return methods.recipe(name, members.toy_data(), ipc=ipc, experts=experts, **settings)


def run(recipe, **options):
    metrics = []
    done = dd.distill(recipe, members.toy_data(), key=0, show_progress=False, log_every=1,
                      callbacks=[lambda step, m: metrics.append(m)], **options)
    return done.synthetic, metrics


@pytest.fixture(scope="module", autouse=True)
def perceptrons():
    """In place of ConvNets, which take longer to compile."""
    def convnet(spec, depth, width):
        return members.one_convolution(width)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unrolling, "nets", types.SimpleNamespace(convnet=convnet))
        yield


@pytest.fixture(scope="module")
def mtt(tmp_path_factory):
    """A whole run, which trains its experts into its folder: (folder, set, metrics)."""
    folder = tmp_path_factory.mktemp("mtt")
    return folder, *run(build("mtt"), workdir=folder)


@pytest.fixture(scope="module")
def experts(mtt):
    return str(mtt[0] / "prepared")


@pytest.mark.parametrize("name", NAMES)
def test_some_steps_lower_the_distance(name, mtt, request):
    if name == "mtt":
        _, synthetic, metrics = mtt
    else:
        synthetic, metrics = run(build(name, request.getfixturevalue("experts")))
    losses = [m["loss"] for m in metrics]
    assert np.mean(losses[3:]) < 0.8 * np.mean(losses[:3]), losses
    assert metrics[0]["rate"] == pytest.approx(0.02 if name == "ast" else 0.1)
    assert synthetic.learning_rate > 0
    assert len({m["rate"] for m in metrics}) == len(metrics)  # it is learned
    if name == "att":
        assert all(m["steps"] in range(1, 5) for m in metrics)
    if name != "datm":
        np.testing.assert_array_equal(synthetic.labels, np.eye(2))


def test_experts_are_trained_into_the_folder_of_the_run(mtt, experts):
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
    ("ast", dict(momentum=0.9, weight_decay=1e-3, learning_rate=[0.003] * 26 + [0.0018] * 24)),
])
def test_the_official_training_of_experts(name, told, monkeypatch, tmp_path):
    """What `train_experts` is asked for; nothing is trained."""
    asked = {}

    def asked_for(folder, network, data, **options):
        asked.update(options, name=network.name)
        raise InterruptedError

    monkeypatch.setattr(trajectory, "train_experts", asked_for)
    recipe = methods.recipe(name, members.toy_data(), ipc=10, depth=1)
    with pytest.raises(InterruptedError):
        recipe.prepare.write(members.toy_data(), jax.random.key(0), tmp_path)
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

    monkeypatch.setattr(trajectory, "train_experts", asked_for)
    with pytest.raises(InterruptedError):
        dd.distill(build("mtt"), members.toy_data(), show_progress=False,
                   workdir=tmp_path if workdir else None)


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
]


@pytest.mark.parametrize("row", OFFICIAL, ids=lambda row: f"{row[0]}-{row[1]}")
def test_official_settings(row):
    name, ipc, inner, span, most, image_rate, rate_rate, rate, own = row
    config = dataclasses.asdict(preset(methods.get(name), "official", ipc))
    wanted = dict(inner_steps=inner, span=span, max_start=most, image_rate=image_rate, rate=rate,
                  rate_rate=rate_rate, augmentation="dsa", width=128, evaluation_width=128,
                  expert_count=100, **own)
    assert {key: config[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_the_official_test_of_a_set(name):
    """A fresh network at the set's rate, dropped once after half of 1001 epochs."""
    evaluation = methods.recipe(name, members.toy_data(), depth=1).evaluation
    assert evaluation == evaluation.varied(
        learned_rate=True, optimizer="sgd", momentum=0.9, weight_decay=5e-4, schedule="step_drop",
        epochs=1001, batch_size=128 if name == "datm" else 256, augmentation="dsa",
        network="convnet", width=128, depth=1)


@pytest.mark.parametrize("protocol", ["official", "cpu"])
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_asks_for_segments_that_its_experts_have(name, protocol):
    for ipc in (1, 2, 10, 50, 500, 1000):
        config = preset(methods.get(name), protocol, ipc)
        assert getattr(config, "min_start", 0) < config.max_start, ipc
        assert config.max_start - 1 + config.span <= config.expert_epochs, ipc
        assert config.inner_steps >= config.span
        first = getattr(config, "first_max_start", None)
        assert first is None or config.min_start < first <= config.max_start


def test_ast_balances_early_and_late_segments():
    """log_5(t - h + 8) from the middle on, one over log_5(h - t + 8) before."""
    factor = ast.balance(7)
    for epoch in range(7):
        grown = np.log(abs(epoch - 3) + 8) / np.log(5)
        wanted = grown if epoch >= 3 else 1 / grown
        np.testing.assert_allclose(factor(jnp.int32(epoch)), wanted, rtol=1e-6)


@pytest.mark.parametrize("name,changes,wanted", [
    ("ast", {}, dict(shake=1.0, starts=(0, 2, None, 0))),
    ("ast", dict(balanced=False, shake=0.0), dict(shake=0.0, rate_schedule=None)),
    ("datm", dict(min_start=1, max_start=3, first_max_start=2, growth_steps=9),
     dict(starts=(1, 3, 2, 9))),
    ("tesla", dict(soft_labels=True), dict(relabel=True)),
    ("mtt", {}, dict(starts=(0, 2, None, 0))),
])
def test_the_objective_is_given_the_settings(name, changes, wanted, experts, monkeypatch):
    asked, module = {}, methods.get(name).recipe.__module__.rpartition(".")[2]

    def recorded(learner, segments, **options):
        asked.update(options, learner=learner, segments=segments)

    for place in (getattr(methods, module), methods.trajectory):
        monkeypatch.setattr(place, "trajectory_matching", recorded, raising=False)
    methods.recipe(name, members.toy_data(), experts=experts, **{
        **SMALL, "span": 1, "max_start": 2, **changes})
    assert {key: asked[key] for key in wanted} == wanted
    assert asked["learner"].steps == 4 and asked["segments"].span == 1
    assert asked["segments"].waypoints == (name == "ast")
    if name == "ast" and changes.get("balanced", True):
        found = asked["rate_schedule"](jnp.int32(0))
        np.testing.assert_allclose(found, ast.balance(2)(jnp.int32(0)))


def test_datm_stands_still_above_its_threshold(experts):
    """No loss is at most zero: images, labels and rate are those of the start, to the bit."""
    recipe = build("datm", experts, threshold=0.0, steps=3)
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
    recipe = build("tesla", experts, soft_labels=True)
    assert recipe.label_kind == "probabilities"
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
    assert build("tesla", experts).finalise is None


def first_set():
    return members.start(labels="one_hot")._replace(learning_rate=jnp.float32(0.3))


def completed(recipe, experts):
    return recipe.prepare.complete(recipe, pathlib.Path(experts)) if recipe.prepare else recipe


def never(*args):
    raise AssertionError("used")


@pytest.mark.parametrize("ready", [False, True], ids=["trained in the run", "in a folder"])
def test_later_stages_have_all_variations_of_the_first(ready, experts, monkeypatch):
    def counting(learner, segments, **options):
        return Objective(lambda shown, *args: (shown.images.shape[0], {}), never, never, never)

    monkeypatch.setattr(trajectory, "trajectory_matching", counting)
    recipe = dataclasses.replace(flipped(build("mtt", experts if ready else None)), steps=5)
    first = first_set()
    size = first.images.shape[0]
    for _ in range(2):  # a recipe that was prepared before has other stages, too
        later = next_stage(recipe, [first], members.SPEC, 1, 2)
        assert later.prepare is not None and not later.prepared and later.steps == 5
        assert later.settings["flipped"] and later.settings["stage"] == 2
        note = later.settings["earlier"]
        assert note in later.prepare.write.args
        later = completed(later, experts)
        # Both stages and their mirror images, once.
        state = types.SimpleNamespace(images=first.images, labels=first.labels, inner=())
        assert later.objective.loss(first, state, None, None)[0] == 2 * 2 * size
        recipe = completed(recipe, experts)
        assert recipe.objective.loss(first, (), None, None)[0] == 2 * size


@pytest.mark.parametrize("ready", [False, True], ids=["trained in the run", "in a folder"])
def test_what_is_replaced_by_hand_stays_through_every_preparation(ready, experts):
    def start(data, key):
        raise AssertionError("used")

    objective = Objective(*[never] * 4)
    recipe = dataclasses.replace(build("ast", experts if ready else None), initialise=start)
    done = completed(recipe, experts)
    assert done.initialise is start and done.lighter
    assert done.objective.init(None, first_set()).step == 0  # made by the preparation
    done = completed(dataclasses.replace(recipe, objective=objective), experts)
    again = dataclasses.replace(done, prepare=done.restarted(lambda network: network, "again"))
    again = completed(again, experts)
    assert again.initialise is start and again.objective is objective


@pytest.mark.parametrize("ready", [False, True], ids=["trained in the run", "in a folder"])
def test_a_grown_set_starts_from_the_earlier_one_and_new_images_of_the_method(ready, experts):
    data, earlier, key = members.toy_data(), first_set(), jax.random.key(0)
    each = earlier.images.shape[0] // members.CLASSES
    recipe = build("ast", experts if ready else None, ipc=each + 1)
    found = completed(grown(recipe, earlier, share=0.25), experts)
    assert found.settings["share"] == 0.25
    start, plain = (jax.jit(one.initialise)(data, key) for one in (found, completed(
        recipe, experts)))
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
def test_only_what_needs_less_memory_is_offered_as_lighter(name, changes, offered, experts):
    recipe = build(name, experts, **changes)
    assert list(recipe.lighter) == [f"adjoint={other!r}" for other in offered]
    for (_, one), other in zip(recipe.lighter.items(), offered):
        assert one().settings["adjoint"] == other and one().prepared == recipe.prepared


@pytest.mark.parametrize("name,changes,said", [
    ("mtt", dict(max_start=9), "max_start=2"),
    ("mtt", dict(span=4), "span is 4.*span=3"),
    ("mtt", dict(adjoint="tow_pass"), "adjoint 'tow_pass'.*'two_pass'"),
    ("mtt", dict(batch_size=0), "batch_size is 0"),
    ("mtt", dict(inner_steps=0), "inner steps is 0"),
    ("mtt", dict(image_rate=-1.0), "image_rate is -1.0"),
    ("mtt", dict(rate_rate=-1e-5), "rate_rate is -1e-05"),
    ("mtt", dict(rate=-0.1), "rate is -0.1"),
    ("mtt", dict(expert_rate=float("nan")), "expert_rate is nan"),
    ("mtt", dict(momentum=-0.5), "momentum is -0.5"),
    ("mtt", dict(augmentation="das"), "'das'.*'dsa'"),
    ("mtt", dict(normaliser="zac"), "'zac'.*'zca'"),
    ("mtt", dict(start="rael"), "'rael'.*'real'"),
    ("ftd", dict(average=1.5), "average is 1.5"),
    ("ftd", dict(radius=-0.1), "radius is -0.1"),
    ("datm", dict(label_rate=-1.0), "label_rate is -1.0"),
    ("datm", dict(threshold=-1.0), "threshold is -1.0"),
    ("datm", dict(min_start=1), "max_start is 1"),
    ("datm", dict(max_start=2, first_max_start=3, growth_steps=5), "begins at 3 and ends at 2"),
    ("ast", dict(waypoint_weights="adaptiv"), "'adaptiv'.*'adaptive'"),
    ("ast", dict(shake=-1.0), "shake is -1.0"),
    ("ast", dict(adjoint="two_pass"), "two_pass.*momentum.*checkpointed"),
], ids=lambda value: None if isinstance(value, str) else "-".join(map(str, value)))
def test_settings_that_cannot_be_are_refused(name, changes, said, experts):
    with pytest.raises(ConfigError, match=said):
        build(name, experts, **changes)


@pytest.mark.parametrize("name,changes,said", [
    ("mtt", dict(max_start=9), "max_start"),
    ("datm", dict(min_start=1), "max_start is 1"),
    ("datm", dict(max_start=2, first_max_start=3, growth_steps=5), "begins at 3 and ends at 2"),
    ("datm", dict(growth_steps=5), "growth_steps is 5"),
    ("ast", dict(inner_steps=1), "steps"),
], ids=lambda value: None if isinstance(value, str) else "-".join(map(str, value)))
def test_they_are_refused_before_experts_are_trained(name, changes, said):
    with pytest.raises(ConfigError, match=said):
        build(name, **changes)


def test_a_rate_of_zero_is_refused(experts):
    with pytest.raises(ConfigError, match="rate is 0"):
        build("mtt", experts, rate=0.0)


@pytest.mark.parametrize("changes,said", [(dict(width=3), "the one asked for has"),
                                          (dict(normaliser="zca"), "normaliser")])
def test_experts_of_another_kind_are_refused(changes, said, experts):
    with pytest.raises(CheckpointError, match=said):
        build("mtt", experts, **changes)
