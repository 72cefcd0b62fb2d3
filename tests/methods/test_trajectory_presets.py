"""Presets of the trajectory methods: settings by data and budget, two cores, stages, and which
experts will do.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax import methods, nets
from dd_jax.cli.options import method_command
from dd_jax.data import from_arrays
from dd_jax.distill import complete
from dd_jax.errors import CheckpointError
from dd_jax.methods.frame import Site
from tests.laws import members
from tests.methods import tiny

NAMES = ("mtt", "ftd", "tesla", "datm", "att", "ast", "pdd")
DATA = ("cifar10", "cifar100", "tiny_imagenet", "imagenet", "svhn", "fashion_mnist")
# Method, data, and whether its authors whiten them, by images per class.
WHITENED = [
    ("mtt", "cifar10", {1: True, 10: True, 50: False}),
    ("mtt", "cifar100", {1: True, 10: False, 50: True}),
    ("mtt", "tiny_imagenet", {1: False, 10: False, 50: False}),
    ("ftd", "cifar10", {1: True, 10: True, 50: True}),
    ("ftd", "cifar100", {1: True, 10: True, 50: True}),
    ("tesla", "cifar10", {1: False, 10: True, 50: False}),
    ("tesla", "cifar100", {1: True, 10: False, 50: True}),
    ("datm", "cifar10", {1: True, 10: True, 50: True, 500: True, 1000: True}),
    ("datm", "cifar100", {1: True, 10: True, 50: True, 100: True}),
    ("datm", "tiny_imagenet", {1: True, 10: True, 50: True}),
    ("att", "cifar10", {1: True, 10: True, 50: False}),
    ("att", "cifar100", {1: True, 10: False, 50: True}),
    ("att", "tiny_imagenet", {1: False, 10: False}),
    ("ast", "cifar10", {1: True, 10: True, 50: True}),
    ("ast", "cifar100", {1: True, 10: False, 50: False}),
    ("pdd", "cifar10", {2: True, 10: True}),
    ("pdd", "cifar100", {2: True, 10: True}),
    ("pdd", "tiny_imagenet", {2: False, 10: False}),
    *((name, data, {1: False, 10: False}) for name in NAMES for data in ("svhn", "", "mnist")),
]
# N / M / T_max / rate of images / rate of the rate / first rate of other data than CIFAR-10.
OTHER = [
    ("mtt", "cifar100", 1, 20, 3, 20, 1000, 1e-5, 0.01, {}),
    ("mtt", "cifar100", 10, 20, 2, 20, 1000, 1e-5, 0.01, dict(batch_size=None)),
    ("mtt", "cifar100", 50, 80, 2, 40, 1000, 1e-5, 0.01, dict(batch_size=125)),
    ("mtt", "tiny_imagenet", 1, 10, 2, 10, 1e4, 1e-4, 0.01, {}),
    ("mtt", "tiny_imagenet", 50, 20, 2, 40, 1e4, 1e-4, 0.01, dict(batch_size=300)),
    ("ftd", "cifar100", 1, 40, 3, 20, 1000, 1e-5, 0.01, dict(share=1.0, average=0.9995)),
    ("ftd", "cifar100", 50, 80, 2, 40, 1000, 1e-5, 0.01, dict(batch_size=1000, average=0.999)),
    ("tesla", "cifar100", 50, 80, 2, 40, 500, 1e-5, 0.01, dict(batch_size=125)),
    ("tesla", "imagenet", 1, 10, 3, 10, 5000, 1e-4, 0.01, dict(soft_labels=True, expert_count=50)),
    ("datm", "cifar100", 1, 40, 3, 20, 1000, 1e-5, 0.01, dict(
        batch_size=None, label_rate=10, threshold=1, first_max_start=10, growth_steps=1000)),
    ("datm", "cifar100", 50, 80, 2, 70, 1000, 1e-5, 0.01, dict(
        batch_size=1000, min_start=20, first_max_start=None, growth_steps=0)),
    ("datm", "tiny_imagenet", 50, 20, 2, 70, 100, 1e-4, 0.01, dict(batch_size=1000, min_start=40)),
    ("att", "cifar100", 1, 50, 4, 20, 500, 1e-5, 0.01, dict(average=0.9995, steps=3000)),
    ("att", "cifar100", 50, 80, 2, 40, 1000, 1e-5, 0.01, dict(batch_size=1200, steps=100_000)),
    ("ast", "cifar100", 1, 20, 3, 20, 1000, 1e-5, 0.01, {}),
    ("ast", "cifar100", 10, 20, 2, 30, 1000, 1e-5, 0.01, dict(batch_size=128)),
    ("pdd", "cifar100", 2, 20, 3, 20, 1000, 1e-5, 0.01, dict(batch_size=None)),
    ("pdd", "cifar100", 10, 20, 2, 20, 1000, 1e-5, 0.01, dict(batch_size=512)),
    ("pdd", "tiny_imagenet", 10, 20, 2, 20, 1e4, 1e-4, 0.01, dict(batch_size=64, expert_epochs=24)),
]


@pytest.mark.parametrize("protocol", ["official", "cpu"])
def test_images_are_whitened_where_the_authors_do(protocol):
    for name, data, budgets in WHITENED:
        for ipc, asked in budgets.items():
            found = methods.preset(name, protocol, ipc, data=data).normaliser
            assert found == ("zca_absolute" if asked else "standardise"), (name, data, ipc)


@pytest.mark.parametrize("row", OTHER, ids=lambda row: "-".join(map(str, row[:3])))
def test_official_settings_of_other_data(row):
    name, data, ipc, inner, span, most, image_rate, rate_rate, rate, own = row
    config = dataclasses.asdict(methods.preset(name, "official", ipc, data=data))
    wanted = dict(inner_steps=inner, span=span, max_start=most, image_rate=image_rate, rate=rate,
                  rate_rate=rate_rate, **own)
    assert {key: config[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_segments_of_all_data_are_within_their_experts(name):
    for protocol, data, ipc in ((p, d, i) for p in ("official", "cpu") for d in DATA
                                for i in (1, 2, 5, 10, 50, 100, 500)):
        config = methods.preset(name, protocol, ipc, data=data)
        low, first = getattr(config, "min_start", 0), getattr(config, "first_max_start", None)
        assert config.max_start - 1 + config.span <= config.expert_epochs, (protocol, data, ipc)
        assert low < config.max_start and (first is None or low < first <= config.max_start)
        assert (first is None) == (getattr(config, "growth_steps", 0) == 0)


@pytest.mark.parametrize("channels,ipc,changes,wanted", [
    (3, 10, {}, "zca_absolute"), (3, 50, {}, None),
    (3, 10, dict(normaliser="standardise"), None), (1, 1, dict(normaliser="zca"), "zca")])
def test_the_plan_follows_and_experts_see_the_same(channels, ipc, changes, wanted):
    """Nothing has to be made for images that are standardised."""
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, channels), np.uint8)
    data = from_arrays(images, np.arange(200) % 2, name="cifar10")
    plan = methods.plan("mtt", data, ipc=ipc, depth=1, width=4, **changes)
    need = plan.needs.get("normaliser")
    assert (need and need.settings["name"]) == wanted
    seen = plan.needs["experts"].needs["normaliser"]
    assert seen.settings["name"] == (wanted or "standardise")


def test_the_command_line_follows_the_data():
    words = ["mtt", "--ipc", "10", "--protocol", "official"]
    for data, wanted in (("cifar10", "zca_absolute"), ("tfds:cifar10", "zca_absolute"),
                         ("fashion_mnist", "standardise")):
        command = method_command("distill", [*words, "--data", data])[1]
        assert command.settings.normaliser == wanted and command.run.stages == 1
    assert method_command("distill", ["pdd", "--ipc", "2"])[1].run.stages == 5
    assert method_command("distill", ["pdd", "--ipc", "2", "--stages", "2"])[1].run.stages == 2


@pytest.mark.parametrize("name", NAMES)
def test_presets_for_two_cores_keep_what_is_a_method_s_own(name):
    for ipc in (1, 2, 10, 50, 500):
        small, official = (methods.preset(name, p, ipc) for p in ("cpu", "official"))
        own = ["inner_steps", "span", "momentum", "expert_batch_size", "adjoint"]
        own += ["evaluation_epochs"] if name != "pdd" else []
        own += ["image_rate", "rate"] if ipc == 1 else []
        own += ["expert_rate", "rate", "expert_drop"] if name == "ast" else []
        for field in own:
            assert getattr(small, field) == getattr(official, field), (ipc, field)
        assert ipc > 1 or small.rate_rate == 1e-6
        assert ipc == 1 or small.rate_rate == (1e-6 if name == "ast" or (name, ipc) == ("pdd", 2)
                                               else 1e-5)
        assert not hasattr(small, "average") or small.average == 0.9
        # Nine tenths of the average are of less than a tenth of the steps.
        assert not hasattr(small, "average") or 1 / (1 - small.average) < small.steps / 10
    if name == "datm":  # whose experts are trained twice as long as those of FTD
        for protocol in ("official", "cpu"):
            epochs = [methods.preset(n, protocol, 10).expert_epochs for n in ("ftd", "datm")]
            assert epochs[1] == 2 * epochs[0]
    if name in ("mtt", "ftd", "tesla"):
        small = methods.preset(name, "cpu", 10)
        assert (small.image_rate, small.batch_size, small.inner_steps, small.rate,
                small.expert_rate) == (300, 25, 30, 0.06, 0.05)


def moved(**changes):
    """How far the images are from their start after 50 steps, relative to it.

    Experts go down the gradient, about as far as the student can follow half of the way.
    """
    data, network = members.toy_data(), nets.convnet(members.SPEC, depth=1, width=8)
    plan = methods.plan("mtt", data, protocol="cpu", ipc=10, width=8, depth=1,
                        augmentation="none", **changes)
    recipe = plan.build({"experts": members.Walks(network, epochs=5)})
    d = dd.distillation(recipe)
    state = first = jax.jit(d.init)(jax.random.key(0), data)
    step = jax.jit(d.step)
    for _ in range(50):
        state, _ = step(state, d.fetch(data, d.sample(state, data)))
    images = first.params["images"]
    return float(jnp.linalg.norm(state.params["images"] - images) / jnp.linalg.norm(images))


def test_images_of_mtt_move_on_two_cores():
    """They hardly do at the rates that are for thirty times the steps."""
    official = methods.preset("mtt", "official", 10)
    rates = dict(image_rate=official.image_rate, rate=official.rate)
    now = moved()
    assert now > 0.1 and now > 3 * moved(**rates)


@pytest.fixture(scope="module")
def perceptrons():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Site, "convnet", lambda at: members.one_convolution(at.settings.width))
        yield


@pytest.fixture(scope="module")
def experts(perceptrons, tmp_path_factory):
    """A folder of MTT's experts: 3 epochs of plain SGD at 0.1, in batches of 16."""
    store = tmp_path_factory.mktemp("store")
    complete(tiny.plan("mtt"), members.toy_data(), artefacts=store, show_progress=False)
    folder, = (path for path in store.glob("experts*") if path.is_dir())
    return str(folder)


@pytest.mark.parametrize("name,changes,said", [
    ("mtt", dict(expert_batch_size=32), "batch_size is 16 there, 32 asked for"),
    ("mtt", dict(expert_epochs=4), "epochs is 3 there, 4 asked for"),
    ("mtt", dict(expert_rate=0.01), "learning_rate is 0.1 there, 0.01 asked for"),
    ("mtt", dict(augmentation="dsa"), "augmentation is .none. there, .dsa. asked for"),
    ("att", dict(expert_batch_size=512), "batch_size is 16 there, 512 asked for"),
    ("ftd", {}, "rule is None there, .*sharpness_aware"),
    ("datm", {}, "rule is None there, .*sharpness_aware"),
    ("ast", {}, "momentum is 0.0 there, 0.9 asked for"),
])
def test_experts_of_another_training_are_refused(name, changes, said, experts):
    with pytest.raises(CheckpointError, match=f"trained otherwise.*{said}.*set what they were"):
        tiny.plan(name, experts=experts, **changes)


@pytest.mark.parametrize("name,changes", [
    ("mtt", {}), ("tesla", {}), ("att", {}), ("pdd", {}),
    ("mtt", dict(expert_epochs=2)),  # their first two, and the third does no harm
    ("mtt", dict(expert_count=1, expert_seed=9))])
def test_experts_of_the_same_training_will_do(name, changes, experts):
    tiny.plan(name, experts=experts, **changes)


def test_pdd_makes_five_stages_of_two_images():
    toy = members.toy_data()
    settings = methods.preset("pdd", "official", 2)
    plan = methods.plan_with("pdd", dataclasses.replace(settings, depth=1, width=4), toy)
    assert (plan.stages, plan.then(lambda recipe: recipe).stages) == (5, 5)
    assert methods.plan("mtt", toy, depth=1, width=4).stages == 1
    # Experts of later stages are only trained for as long as their segments and an epoch need.
    assert plan.needs["experts"].settings["epochs"] == 50
    later = plan.later(lambda network: network, "after").needs["experts"]
    assert later.settings["epochs"] == settings.max_start + settings.span + 1 == 8
    assert dd.evaluate.equal_budget(settings.evaluation_epochs, plan.stages) == 501


def test_an_inner_step_of_pdd_takes_as_many_images_as_a_stage_has():
    settings = dataclasses.replace(methods.preset("pdd", "official", 2), depth=1, width=4)
    student = settings.student(Site(settings, members.toy_data(), whitening=None), "full")
    for stage in (1, 2, 5):
        rows = student.plan(jax.random.key(0), stage * 4).rows
        assert rows is None if stage == 1 else rows.shape == (50, 4)
        assert stage == 1 or set(np.asarray(rows).ravel()) == set(range(stage * 4))
