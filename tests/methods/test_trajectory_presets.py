"""Presets of the trajectory methods: whitening by data and budget, two cores, stages, and which
experts will do.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax import methods
from dd_jax.cli.distill import _stages
from dd_jax.cli.options import Run
from dd_jax.data import from_arrays
from dd_jax.distill import complete
from dd_jax.errors import CheckpointError
from dd_jax.methods.frame import Site
from dd_jax.types import DataSpec
from tests.laws import members
from tests.methods import tiny

NAMES = ("mtt", "ftd", "tesla", "datm", "att", "ast", "pdd")
# Method, data, and whether its authors whiten them, by images per class.
WHITENED = [
    ("mtt", "cifar10", {1: True, 10: True, 50: False}),
    ("mtt", "cifar100", {1: True, 10: False, 50: True}),
    ("mtt", "tiny_imagenet", {1: False, 10: False, 50: False}),
    ("ftd", "cifar10", {1: True, 10: True, 50: True}),
    ("tesla", "cifar10", {1: False, 10: True, 50: False}),
    ("tesla", "cifar100", {1: True, 10: False, 50: True}),
    ("datm", "cifar10", {1: True, 10: True, 50: True, 500: True, 1000: True}),
    ("datm", "cifar100", {1: True, 10: True, 50: True}),
    ("datm", "tiny_imagenet", {1: True, 10: True, 50: True}),
    ("att", "cifar10", {1: True, 10: True, 50: False}),
    ("att", "cifar100", {1: True, 10: False, 50: True}),
    ("att", "tiny_imagenet", {1: False, 10: False}),
    ("ast", "cifar10", {1: True, 10: True, 50: True}),
    ("pdd", "cifar10", {2: True, 10: True}),
    ("pdd", "cifar100", {2: True, 10: True}),
    ("pdd", "tiny_imagenet", {2: False, 10: False}),
    *((name, "svhn", {1: False, 10: False}) for name in NAMES),
]


@pytest.mark.parametrize("name,data,budgets", WHITENED)
@pytest.mark.parametrize("protocol", ["official", "cpu"])
def test_images_are_whitened_where_the_authors_do(name, data, budgets, protocol):
    spec = DataSpec(data, (32, 32, 3), 10, tuple("abcdefghij"))
    for ipc, asked in budgets.items():
        settings = methods.preset(name, protocol, ipc)
        assert settings.normaliser is None
        assert settings.whitening(spec) == ("zca_absolute" if asked else "standardise"), ipc


@pytest.mark.parametrize("channels,ipc,changes,wanted", [
    (3, 10, {}, "zca_absolute"), (3, 50, {}, None), (1, 10, {}, None),
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
                small.expert_rate) == (1000, 25, 30, 0.02, 0.05)


def moved(**changes):
    """How far the images are from their start after 50 steps, relative to it."""
    data = members.toy_data()
    plan = methods.plan("mtt", data, protocol="cpu", ipc=10, width=4, depth=1, steps=50,
                        expert_count=2, expert_batch_size=2, augmentation="none", **changes)
    recipe = complete(plan, data, show_progress=False)
    d = dd.distillation(recipe)
    first = jax.jit(d.init)(jax.random.key(0), data)
    step, state = jax.jit(d.step), first
    for _ in range(50):
        state, _ = step(state, d.fetch(data, d.sample(state, data)))
    images = first.params["images"]
    return float(jnp.linalg.norm(state.params["images"] - images) / jnp.linalg.norm(images))


def test_images_of_mtt_move_on_two_cores():
    """They hardly did at the official rate, which is for thirty times the steps."""
    assert 0.1 < moved() < 1.0


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
    ("mtt", dict(augmentation="dsa"), "augmentation is False there, True asked for"),
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
    assert (_stages(plan, Run()), _stages(plan, Run(stages=2))) == (5, 2)
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
