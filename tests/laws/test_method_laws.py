"""The laws of every method: its declaration, its papers, its presets, one step of it, plug-ins."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import dd_jax as dd
from dd_jax import methods
from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError
from dd_jax.methods import METHODS
from dd_jax.methods.families.selection import Selection
from dd_jax.methods.frame import registry
from dd_jax.methods.frame.fields import check_fields
from dd_jax.methods.frame.settings import Settings
from dd_jax.methods.frame.table import readme_table
from tests.laws import members
from tests.methods.tiny import TINY, UNTAUGHT, plan

ROOT = pathlib.Path(methods.__file__).parents[2]
GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "presets.json"
NAMES = sorted(METHODS)
PRESETS = [(name, protocol) for name in NAMES for protocol in METHODS[name].settings.presets]
# Data that papers publish figures for, by the library's names of them.
KNOWN_DATA = {"mnist", "fashion_mnist", "svhn", "cifar10", "cifar100", "tiny_imagenet", "imagenet",
              "imagenette"}
# Several methods of one paper.
SHARED = {("dcc", "dsac"), ("el2n", "grand"), ("margin", "entropy", "least_confidence")}
STEPLESS = {"label_solve", *(name for name in METHODS
                             if issubclass(METHODS[name].settings, Selection))}
# Fields with new names since the golden was made; others that are new have these values.
RENAMED = {"select_every": "validate_every"}
NEW = {"bank_seed": 0, "classes_at_once": None, "evaluation_steps": None, "expert_seed": 0,
       "flips": None, "start_seed": 0, "teacher_seed": 0}


def of_kind(channels, classes):
    """A hundred images for each class, as far as a plan looks: of one grey level each."""
    labels = np.repeat(np.arange(classes), 100)
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (len(labels), 1, 1, channels), np.uint8)
    return from_arrays(np.broadcast_to(levels, (len(labels), 16, 16, channels)), labels)


@pytest.fixture(scope="module", params=[(1, 2), (1, 100), (3, 2), (3, 100)],
                ids=lambda kind: f"{kind[0]} channels, {kind[1]} classes")
def data(request):
    return of_kind(*request.param)


# What an image of 16 pixels has no room for.
ROOM = {"linba": dict(bases=2), "idm": dict(queue_steps=1, queue_batch_size=64)}


@pytest.mark.parametrize("name,protocol", PRESETS)
def test_every_preset_is_a_plan_that_knows_what_it_needs(name, protocol, data):
    """Where nothing has to be made, also a recipe."""
    for ipc in (1, 10):
        settings = methods.preset(name, protocol, ipc, **ROOM.get(name, {}))
        check_fields(settings)
        made = methods.plan_with(name, settings, data)
        assert len({need.address(data) for need in made.needs.values()}) == len(made.needs)
        if not made.needs:
            recipe = made.build({})
            assert (recipe.method, recipe.settings["ipc"]) == (name, ipc)
            json.dumps(dict(recipe.settings)), json.dumps(recipe.evaluation.plain())


def test_presets_are_what_they_were():
    golden = json.loads(GOLDEN.read_text())
    assert set(golden) == set(METHODS)
    for name, cells in golden.items():
        assert {cell.split("/")[0] for cell in cells} == set(METHODS[name].settings.presets), name
        for cell, changed in cells.items():
            protocol, ipc = cell.split("/")
            found = dataclasses.asdict(methods.preset(name, protocol, int(ipc)))
            wanted = {RENAMED.get(field, field): value
                      for field, value in {**cells["official/1"], **changed}.items()}
            new = set(found) - set(wanted) - {"ipc"}
            assert new <= set(NEW), (name, new)
            assert found == {**wanted, **{field: NEW[field] for field in new}, "ipc": int(ipc)}


def test_what_is_published_for_some_data_are_settings_of_the_method():
    for name, method in METHODS.items():
        for data, table in method.settings.for_data.items():
            assert data in KNOWN_DATA, (name, data)
            for budget, protocol in itertools.product(table, method.settings.presets):
                check_fields(methods.preset(name, protocol, budget or 1, data=data))


def test_a_method_is_a_file():
    files = {path.stem.rstrip("_") for path in (ROOT / "dd_jax/methods").glob("*.py")
             if path.stem != "__init__"}
    assert files == set(METHODS) == set(TINY)
    for name, method in METHODS.items():
        assert method.name == name and method.settings.__module__.rstrip("_").endswith(f".{name}")


def attributes(kind):
    """Names in the part "Attributes:" of a docstring, its own only."""
    told = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
    text = told.partition("Attributes:")[2].split("\n\n")[0]
    entries = re.findall(r"^  (\w[\w, ]*?):", text, re.MULTILINE)
    return {name.strip() for entry in entries for name in entry.split(",")}


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_documented(name):
    kind = METHODS[name].settings
    told = set().union(*(attributes(base) for base in kind.__mro__ if issubclass(base, Settings)))
    assert {field.name for field in dataclasses.fields(kind)} <= told


def test_papers_and_references_are_valid():
    papers, references = registry.papers(), registry.references()
    assert set(papers) == set(METHODS)
    text = (ROOT / "dd_jax/methods/references.bib").read_text()
    assert len(references) == text.count("\n@") + 1  # each is read, and no key is there twice
    assert {paper["reference"] for paper in papers.values()} == set(references)
    shared = {}
    for name, paper in papers.items():
        assert set(paper) <= {"reference", "variant", "matches", "published", "read_out"}, name
        assert paper["matches"] and registry.title_of(references[paper["reference"]]), name
        shared.setdefault(paper["reference"], []).append(name)
        method = METHODS[name]
        assert method.citation == references[paper["reference"]]
        for (data, ipc), cell in {**method.published, **method.published_read_out}.items():
            assert data in KNOWN_DATA and ipc >= 1 and cell.source, (name, data)
            assert 0 < cell.mean < 100 and (cell.std is None or 0 <= cell.std < 100), (name, data)
    assert {tuple(names) for names in shared.values() if len(names) > 1} == SHARED


def test_the_readme_has_the_table_of_methods():
    assert readme_table() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_finite(name):
    """Of an untrained teacher or expert, where there is one."""
    made = plan(name, **UNTAUGHT.get(name, {})).then(
        lambda recipe: dataclasses.replace(recipe, steps=min(recipe.steps, 1)))
    losses = []
    done = dd.distill(made, members.toy_data(), key=0, show_progress=False, log_every=1,
                      callbacks=[lambda step, metrics: losses.append(metrics["loss"])])
    assert len(losses) == (name not in STEPLESS) and np.all(np.isfinite(losses))
    assert np.all(np.isfinite(done.synthetic.images)) and np.all(np.isfinite(done.synthetic.labels))


OBJECTIVE = '''\
def pixel_means(classes):
    """Class means of pixels agree."""

    def loss(synthetic, state, batch, key):
        made, real = (x.reshape(classes, -1, *x.shape[1:]).mean(axis=1)
                      for x in (synthetic.images, batch.images))
        return jnp.sum((made - real) ** 2), {}

    return Objective(loss)
'''
DECLARATION = '''\
class PixelMeans(Pixels, Tested):
    """Settings of pixel means.

    Attributes:
      steps: outer steps.
      learning_rate: of plain gradient descent.
    """

    steps: Whole = 100
    learning_rate: Rate = 0.1
    title = "Pixel means"
    presets = {
        "official": {},
        "cpu": {0: dict(evaluation_width=2, evaluation_epochs=2), 2: dict(learning_rate=0.2)},
    }

    def build(self, at: Site) -> dict:
        return dict(objective=pixel_means(at.classes), optimizer=optax.sgd(self.learning_rate),
                    evaluation=at.protocol("dc", depth=1, augmentation="none"))
'''
IMPORTS = '''\
from __future__ import annotations

import jax.numpy as jnp
import optax

from dd_jax.methods.frame import Pixels, Rate, Site, Tested, Whole
from dd_jax.types import Objective
'''


@pytest.fixture
def plug_in(tmp_path):
    assert len(OBJECTIVE.splitlines()) <= 15 and len(DECLARATION.splitlines()) <= 25
    file = tmp_path / "json.py"  # the name of a module, which stays what it is
    file.write_text("\n\n".join([IMPORTS, OBJECTIVE, DECLARATION]))
    return file


def test_a_file_of_one_s_own_is_a_method(plug_in):
    method = methods.get(str(plug_in))
    assert (method.name, method.title, method.published) == ("json", "Pixel means", {})
    assert sys.modules["json"] is json
    settings = methods.preset(method, "cpu", 2)
    assert (settings.learning_rate, settings.evaluation_width) == (0.2, 2)
    with pytest.raises(ConfigError, match="learning_rate is -1"):
        methods.recipe(str(plug_in), members.toy_data(), learning_rate=-1)
    again = methods.get(str(plug_in))  # read anew, also where it has changed
    assert again.settings is not method.settings
    assert methods.preset(again).steps == 100


def test_a_file_of_one_s_own_runs_is_stopped_resumed_and_tested(plug_in, tmp_path):
    toy = members.toy_data()
    np.savez(tmp_path / "toy.npz", images=np.asarray(toy.images), labels=np.asarray(toy.labels))

    def started(run):
        words = ["distill", str(plug_in), "--data", str(tmp_path / "toy.npz"), "--workdir",
                 str(tmp_path / run), "--steps", "20000", "--log-every", "50", "--seeds", "1"]
        return subprocess.Popen([sys.executable, "-m", "dd_jax", *words], cwd=ROOT,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finished(run):
        child = started(run)
        told = child.communicate(timeout=180)[0]
        assert child.returncode == 0, told
        result = json.loads((tmp_path / run / "result.json").read_text())
        assert result["method"] == "json" and result["steps"] == 20_000
        return (tmp_path / run / "set.safetensors").read_bytes()

    child, metrics = started("stopped"), tmp_path / "stopped" / "metrics.jsonl"
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    told = child.communicate(timeout=60)[0]
    assert child.returncode == 75, told
    assert not (tmp_path / "stopped" / "set.safetensors").exists()
    assert finished("stopped") == finished("whole")
