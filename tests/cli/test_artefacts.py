"""`prepare` and `artefacts`: what is made from real data is made, listed and deleted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dd_jax.cli.artefacts import _made_by
from dd_jax.cli.main import main
from dd_jax.store.artefacts import Entry
from tests.cli.test_wrong_inputs import make_files

FAST = ["--width", "4", "--depth", "1", "--expert-epochs", "3", "--expert-count", "1",
        "--span", "1", "--max-start", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of artefacts with experts of MTT in it, the data's file)."""
    folder = tmp_path_factory.mktemp("artefacts")
    good = make_files(tmp_path_factory.mktemp("inputs"))["good"]
    assert main(prepare(folder / "store", good)) == 0
    return folder / "store", good


def prepare(store, data, *more):
    return ["prepare", "mtt", "--data", data, "--artefacts", str(store), *FAST, *more]


def names(store):
    return sorted(path.name for path in store.iterdir() if path.is_dir())


def test_prepared_once(made, capsys):
    store, data = made
    before = names(store)
    assert before and any(name.startswith("experts-") for name in before)
    assert main(prepare(store, data)) == 0
    said = capsys.readouterr()
    assert "reused" in said.out and "made in" not in said.out and names(store) == before
    experts = next(store / name for name in before if name.startswith("experts-"))
    assert main([*prepare(store / "other", data), "--experts", str(experts)]) == 0
    assert "mtt needs nothing" in capsys.readouterr().out
    assert not (store / "other").exists()


def test_listed(made, capsys):
    store, _ = made
    assert main(["artefacts", "--store", str(store)]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in names(store)) and str(store) in said
    assert main(["artefacts", "--store", str(store), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in entries] == names(store)
    assert all(entry["finished"] and entry["bytes"] > 0 for entry in entries)
    assert main(["artefacts", "--store", str(store / "none")]) == 0
    assert "no artefacts in" in capsys.readouterr().out


def test_rows_of_a_kind_are_told_apart():
    def row(number, *, data="photos", seed=0, network="convnet", epochs=20, variables=()):
        protocol = {"network": {"name": network, "width": 32}, "plan": {"epochs": epochs}}
        settings = {"ipc": 1, "protocol": protocol, "test": 64 * "ab", "variables": list(variables)}
        return Entry(f"random_accuracy-{number:024x}", 5, True, settings, data, seed)

    rows = [row(0), row(1, network="mlp"), row(2, epochs=30), row(3, data="faces"), row(4, seed=1),
            row(5, variables=range(50)), row(6, variables=range(51)),
            Entry("random_accuracy-" + 24 * "f", 5, False, {})]
    told = _made_by(rows)
    assert len(set(told)) == len(rows) and told[-1] == ""
    assert told[0].startswith("data photos, network convnet, plan epochs 20, seed 0, variables []")
    assert "ipc 1" in told[0] and 64 * "ab" not in told[0]
    teacher = Entry("teacher-" + 24 * "0", 5, True, {"rate": 0.1}, "photos", 3)
    assert _made_by([rows[0], teacher])[1] == "data photos, rate 0.1, seed 3"


def test_help_of_prepare_has_no_option_of_a_run(capsys):
    with pytest.raises(SystemExit) as end:
        main(["prepare", "mtt", "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and "--artefacts" in said and "--expert-count" in said
    assert not any(name in said for name in ("--seeds", "--flipped", "--stages", "--log-every"))


HALF = "teacher-" + 24 * "0"  # begun and not finished


def test_pruned_and_removed(made, capsys, tmp_path):
    store, _ = made
    (store / HALF).mkdir()
    (store / HALF / "x.npy").write_bytes(b"1234")
    finished = [name for name in names(store) if name != HALF]
    assert main(["artefacts", "--store", str(store)]) == 0 and " no " in capsys.readouterr().out
    assert main(["artefacts", "--store", str(store), "--prune"]) == 0
    assert "1 removed" in capsys.readouterr().out and names(store) == finished

    for wrong in (HALF, "", ".", "..", f"../{store.name}", "*"):
        assert main(["artefacts", "--store", str(store), "--remove", wrong]) == 2
        assert "holds no artefact" in capsys.readouterr().err and names(store) == finished
    assert main(["artefacts", "--store", str(store), "--all"]) == 2
    assert "--prune --all" in capsys.readouterr().err
    assert main(["artefacts", "--store", str(store), "--prune", "--remove", finished[0]]) == 2
    assert names(store) == finished

    copy = tmp_path / "copy"
    one, two = (f"{kind}-{24 * '1'}" for kind in "ab")
    for name in (one, two):
        (copy / name).mkdir(parents=True)
        (copy / name / "artefact.json").write_text("{}")
    assert main(["artefacts", "--store", str(copy), "--remove", one]) == 0
    assert f"removed {one}" in capsys.readouterr().out and names(copy) == [two]
    assert main(["artefacts", "--store", str(copy), "--prune"]) == 0 and names(copy) == [two]
    assert main(["artefacts", "--store", str(copy), "--prune", "--all"]) == 0
    assert names(copy) == []


def test_damage_is_told_and_a_removed_artefact_is_made_again(made, capsys):
    store, data = made
    experts = next(store / name for name in names(store) if name.startswith("experts-"))
    file = max(experts.glob("*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    assert main(prepare(store, data)) == 2
    said = capsys.readouterr().err
    assert experts.name in said and f"--remove {experts.name}" in said
    assert main(["artefacts", "--store", str(store), "--remove", experts.name]) == 0
    assert main(prepare(store, data)) == 0
    assert f"{experts.name}: made in" in capsys.readouterr().out


def test_a_method_without_needs_needs_nothing(made, capsys, tmp_path):
    store, data = made
    before = names(store)
    assert main(["prepare", "dm", "--data", data, "--artefacts", str(store), "--depth", "1"]) == 0
    assert "needs nothing" in capsys.readouterr().out and names(store) == before
    assert np.load(data)["images"].shape[0] == 12
