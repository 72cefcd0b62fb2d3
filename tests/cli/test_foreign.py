"""What other people's files say on the command line: shown and not obeyed, names and no paths."""

from __future__ import annotations

import dataclasses
import os

import pytest

from dd_jax import store
from dd_jax.cli import cache
from dd_jax.cli.main import main
from dd_jax.cli.tables import print_table
from dd_jax.data import sources
from dd_jax.errors import CheckpointError, DataError
from dd_jax.evaluate import protocol
from dd_jax.store.artefacts import MANIFEST, ArtefactStore
from dd_jax.store.envelope import sealed
from experiments.cross_architecture import read_cells
from tests.store.test_any_shape import free
from tests.store.tiny_sets import parts, write_parts

ODD = "\x1b[31mred\x07\nOK: all is well"


def named(folder, name, **changes):
    spec = dataclasses.replace(free().spec, name=name)
    return store.save(folder / "a.safetensors", free(
        spec=spec, evaluation=protocol("x", network="mlp", width=4, depth=1).plain(), **changes))


def test_the_name_of_a_set_s_data_is_never_taken_for_a_path(tmp_path, monkeypatch, capsys):
    def opened(path, **options):
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(sources, "from_path", opened)
    (tmp_path / "private" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "private"), "private", "./private", "tfds:mnist", "../x"):
        assert main(["evaluate", str(named(tmp_path, name))]) == 2
        assert "no well-known set" in capsys.readouterr().err


def test_control_characters_are_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = named(tmp_path, ODD, citation=ODD, recipe={"method": ODD, ODD: [ODD]})
    tensors, card = parts(free(), tmp_path / "b")
    card["label_kind"] = ODD
    odd = tmp_path / f"folder{ODD.replace('/', '')}"
    for name in ("a", f"b{ODD}"):
        (odd / name).mkdir(parents=True)
        (odd / name / "x.png").write_bytes(b"junk")
    for words in (["show", str(path)], ["evaluate", str(path)],
                  ["show", str(write_parts(tmp_path / "c", tensors, card))],
                  ["distill", "dm", "--data", str(odd), "--workdir", str(tmp_path / "w")]):
        main(words)
        said = "".join(capsys.readouterr())
        assert said and "\x1b" not in said and "\x07" not in said and "\nOK" not in said, words
    print_table(("data",), [(f"[bold]x{ODD}",), ("[/]",)])
    said = capsys.readouterr().out
    assert "[bold]x\\x1b[31mred\\x07\\nOK" in said and "[/]" in said and "\x1b" not in said


@pytest.mark.parametrize("settings", [[ODD], "x", None, {"kind": ODD}], ids=range(4))
def test_a_foreign_artefact_is_listed(tmp_path, capsys, settings):
    folder = tmp_path / ("mean-" + "0" * 24)
    folder.mkdir()
    (folder / MANIFEST).write_bytes(sealed({"files": {}, "identity": {"settings": settings}}))
    assert main(["artefacts", "--store", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "mean-0" in said and "\x1b" not in said
    assert isinstance(ArtefactStore(tmp_path).entries()[0].settings, dict)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "", ".hidden", "a\x00b",
                                  "x" * 300])
def test_what_a_manifest_names_lies_in_its_folder(tmp_path, name):
    from dd_jax.store import artefacts

    (tmp_path / "secret").write_text("1")
    folder = tmp_path / "mean"
    folder.mkdir()
    (folder / MANIFEST).write_bytes(sealed({"files": {name: 1}, "identity": {}}))
    with pytest.raises(CheckpointError, match="does not match its own hash"):
        artefacts._check_files(folder)


@pytest.mark.parametrize("text", [
    "[" * 3000 + "]" * 3000, "5", '{"cells": 5}', '{"cells": [{"protocol": {"name": "x"}}]}',
    '{"cells": [{"protocol": {"name": "x"}, "set_sha256": 1, "test_sha256": 1, "seeds": 1, '
    '"seed": 1, "accuracies": [], "accuracy_mean": [], "accuracy_std": 1}]}'], ids=range(5))
def test_cells_of_others(tmp_path, text):
    (tmp_path / "cells.json").write_text(text)
    with pytest.raises(DataError, match="cells.json"):
        read_cells(tmp_path / "cells.json")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


def test_the_cache_of_programs_is_made_private_whatever_the_umask(folder):
    before = os.umask(0)
    try:
        assert cache.programs_folder() == folder
    finally:
        os.umask(before)
    for place in (folder, folder.parent):
        assert place.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)  # as older versions made it
    assert cache.programs_folder() == folder and folder.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_others_can_write_into_is_not_used(folder, capsys):
    def refused(reason):
        assert cache.programs_folder() is None
        said = capsys.readouterr().err
        assert reason in said and "compiled programs are not kept" in said

    folder.mkdir(parents=True)
    for mode in (0o777, 0o770, 0o720):
        folder.chmod(mode)
        refused("others can write into it")
    folder.chmod(0o700)
    folder.parent.chmod(0o777)
    refused("others can replace it")
    folder.parent.chmod(0o1777)  # as /tmp, where everybody has his own
    assert cache.programs_folder() == folder
    folder.rename(folder.parent / "moved")
    folder.symlink_to(folder.parent / "moved")
    refused("it is a link")
    folder.unlink()
    folder.write_text("")
    refused("cannot be used")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_cache_of_another_user_is_not_used(folder, capsys):
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, 65534, 65534)
    assert cache.programs_folder() is None
    assert "it belongs to user 65534" in capsys.readouterr().err


def test_the_command_line_asks_for_the_private_folder(folder, monkeypatch, capsys):
    import jax

    from dd_jax.cli.main import _use_compilation_cache

    monkeypatch.delenv("DD_JAX_COMPILATION_CACHE", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = jax.config.jax_compilation_cache_dir
    try:
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        _use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == before
        folder.chmod(0o700)
        _use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(folder)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert capsys.readouterr().err.count("not kept") == 1


def test_a_finished_run_does_not_end_for_want_of_a_picture(tmp_path, capsys):
    from dd_jax.cli.distill import _draw

    (tmp_path / "grid.png").mkdir()
    _draw(tmp_path, free())
    assert "there is no picture" in capsys.readouterr().err
