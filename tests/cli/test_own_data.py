"""Data of one's own on the command line: how they are read, and what a set remembers of them."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
from PIL import Image

from dd_jax import store
from dd_jax.cli.evaluate import Evaluate
from dd_jax.cli.main import main
from dd_jax.cli.options import Prepare, Run, with_help
from dd_jax.cli.own_data import data_of_set, where_from
from dd_jax.errors import ConfigError
from dd_jax.methods import METHODS
from dd_jax.types import DataSpec
from tests.store.tiny_sets import tiny

FAST = ["--steps", "1", "--width", "2", "--depth", "1", "--batch-size", "2", "--no-evaluate"]


@pytest.fixture
def photos(tmp_path):
    """Class folders of grey images of several sizes."""
    root = tmp_path / "photos"
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (8, 8 + i), 60 * i).save(root / name / f"{i}.png")
    return root


def from_data(own=None, *, name="photos", shape=(8, 8, 1), classes="ab"):
    """A set that says that it was distilled from such data."""
    spec = DataSpec(name, shape, len(classes), tuple(classes))
    recipe = {"method": "dm"} if own is None else {"method": "dm", "own_data": own}
    return tiny(spec=spec, recipe=recipe)


def test_a_folder_of_mixed_sizes_is_distilled_as_the_message_says(photos, tmp_path, capsys):
    words = ["distill", "dm", "--data", str(photos), "--workdir", str(tmp_path / "run"), *FAST]
    assert main(words) == 2
    assert "pass --size 32, for example" in capsys.readouterr().err
    assert main([*words, "--size", "8", "--channels", "3", "--test-share", "0.5"]) == 0
    made = store.load(tmp_path / "run" / "set.safetensors")
    assert made.spec.shape == (8, 8, 3)
    assert made.recipe["own_data"] == {"name": "photos", "size": 8, "channels": 3,
                                       "test_fraction": 0.5}
    assert str(tmp_path) not in str(made.recipe)
    split = data_of_set(Evaluate(file=pathlib.Path("x"), data=str(photos)), made)
    assert split.test.spec == made.spec and len(split.test.labels) == 4


@pytest.mark.parametrize("data,own", [
    ("embedded", {}), ("fashion_mnist", {}), ("tfds:mnist", {"own_data": {"name": "tfds:mnist"}}),
    ("a/b/c.npz", {"own_data": {"name": "c.npz", "size": (4, 5), "class_names": ["x", "y"]}}),
])
def test_a_set_remembers_a_name_and_no_place(data, own):
    given = dict(size="4x5", class_names="x, y") if "c.npz" in data else {}
    assert where_from(Run(data=data, **given)) == own


def asked(**options):
    return Evaluate(file=pathlib.Path("x"), **options)


def test_the_name_is_looked_up_where_the_user_says_that_data_are(photos, monkeypatch):
    made = from_data({"name": "photos", "size": 8})
    monkeypatch.delenv("DD_JAX_DATA", raising=False)
    with pytest.raises(ConfigError, match="no well-known set.*DD_JAX_DATA is not set; pass"):
        data_of_set(asked(), made)
    monkeypatch.setenv("DD_JAX_DATA", str(photos.parent))
    assert data_of_set(asked(), made).test.spec == made.spec
    assert data_of_set(asked(size="4"), made).test.spec.shape == (4, 4, 1)


@pytest.mark.parametrize("name", ["../photos", "/etc/passwd", ".", "..", ".ssh", "", 3, None,
                                  ["photos"], "x" * 300])
def test_a_name_from_a_file_is_never_a_path(name, photos, monkeypatch):
    monkeypatch.setenv("DD_JAX_DATA", str(photos))
    monkeypatch.chdir(photos)
    with pytest.raises(ConfigError, match="cannot be used|holds no"):
        data_of_set(asked(), from_data({"name": name}))
    if isinstance(name, str) and name:
        with pytest.raises(ConfigError, match="cannot be used|holds no"):
            data_of_set(asked(), from_data(name=name))


def test_a_set_does_not_overwrite_itself(tmp_path, capsys):
    path = store.save(tmp_path / "distilled.safetensors", tiny())
    before = path.read_bytes()
    for place in (path, tmp_path):
        assert main(["export", str(path), "--to", "safetensors", "--out", str(place),
                     "--overwrite"]) == 2
        assert "is the set itself" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert main(["show", str(path), "--grid", "/proc/no/a.png"]) == 2
    assert "no file can be written" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [Prepare, Run, Evaluate,
                                  *(METHODS[name].settings for name in METHODS)],
                         ids=lambda kind: kind.__name__)
def test_every_option_has_its_text(kind):
    fields = dataclasses.fields(with_help(kind))
    assert [f.name for f in fields if not f.metadata.get("help")] == []


def test_help_names_its_protocol_and_prints_joint_entries(capsys):
    with pytest.raises(SystemExit):
        main(["distill", "dm", "--help"])
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "those of the protocol and the budget" in told and "are the official ones" not in told
    assert "learning_rate, momentum: of the SGD on the pixels" in told and "--size" in told


def test_brackets_in_names_are_shown(capsys):
    from dd_jax.cli.tables import print_table

    print_table(("data",), [("[red]photos[/red] :smile:",)])
    assert "[red]photos[/red] :smile:" in capsys.readouterr().out
