"""`evaluate --teacher` and `prepare teacher` on tiny data."""

from __future__ import annotations

import numpy as np
import pytest

from dd_jax import store
from dd_jax.cli.main import main
from dd_jax.data.normalise import Normaliser
from dd_jax.distill.teachers import KIND
from dd_jax.evaluate import protocol
from tests.cli.test_evaluate import results, words
from tests.store.test_any_shape import IMAGE, K, saved

MLP = protocol("t", network="mlp", width=4, depth=1, epochs=2, batch_size=8, seeds=2, full_epochs=2)
TRAIN = ["--teacher", "train", "--teacher-network", "mlp", "--teacher-width", "4",
         "--teacher-epochs", "2"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A set of free shape with a label store, and data of three colours."""
    monkeypatch.delenv("DD_JAX_ARTEFACTS")
    rng = np.random.default_rng(0)
    labels = np.arange(30) % K
    images = rng.integers(0, 256, (30, *IMAGE), np.uint8)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    (tmp_path / "run").mkdir()
    saved(tmp_path / "run", evaluation=MLP.plain())
    return tmp_path


def named(*more):
    return ["--class-names", "cat,dog,owl", *more]


def kept(files):
    return sorted(p.name for p in (files / "artefacts").iterdir() if p.name.startswith(f"{KIND}-")
                  and p.is_dir())


def test_a_teacher_is_trained_once_and_found_by_its_name(files, capsys):
    asked = words(files, *named(*TRAIN, "--supervision", "kl@2"))
    assert main(asked) == 0
    said = capsys.readouterr().err
    assert "teacher mlp: " in said
    first, (name,) = results(files)[0], kept(files)
    told = first["told"]
    assert (told["loss"], told["mode"]) == ("kl@2", "running")
    assert [t["artefact"] for t in told["teachers"]] == [name]
    assert 0 <= told["teachers"][0]["accuracy"] <= 1 and first["random_mean"] is not None
    by_name = words(files, *named("--teacher", name, "--supervision", "kl@2"))
    assert main(by_name) == 0
    again = results(files)[0]
    assert again["accuracies"] == first["accuracies"] and kept(files) == [name]
    assert again["random_mean"] == first["random_mean"]
    # The set's own labels are another supervision, and so are other random images' labels.
    assert main(words(files, *named())) == 0
    assert "told" not in results(files)[0]
    baselines = [p for p in (files / "artefacts").iterdir()
                 if p.is_dir() and p.name.startswith("random_accuracy-")]
    assert len(baselines) == 2


def test_labels_of_views_are_stored_once_beside_the_set(files, capsys):
    asked = words(files, *named(*TRAIN, "--no-random", "--label-store"))
    found = {}
    for name in ("full", "quant4", "top2", "top2+pruned2"):
        assert main([*asked, name]) == 0
        said, (found[name],) = capsys.readouterr().err, results(files)
        place = files / "run" / found[name]["label_store"]["file"]
        assert "bytes, written" in said and place.is_file()
        assert 0 < found[name]["label_store"]["bytes"] < place.stat().st_size
    assert main([*asked, "full"]) == 0
    assert "bytes, reused" in capsys.readouterr().err
    assert results(files)[0]["accuracies"] == found["full"]["accuracies"]
    sizes = {name: result["label_store"]["bytes"] for name, result in found.items()}
    assert sizes["top2+pruned2"] < sizes["top2"] and found["full"]["told"]["loss"] == "kl"
    assert found["top2"]["told"]["loss"] == "cross_entropy"


def test_a_committee_and_statistics_of_the_batch(files):
    networks = ["--teacher", "train", "--teacher-network", "mlp,convnet", "--teacher-epochs", "1",
                "--teacher-width", "4", "--teacher-mode", "batch", "--no-random"]
    # Images of 4x4 are too small for the convolutional one's depth.
    assert main(words(files, *named(*networks))) == 2
    networks[3] = "mlp,mlp"
    assert main(words(files, *named(*networks))) == 0
    told = results(files)[0]["told"]
    assert told["mode"] == "batch" and len(told["teachers"]) == 2


@pytest.mark.parametrize("more,told", [
    (["--supervision", "kl@4"], "pass --teacher train"),
    (["--teacher-network", "mlp"], "pass --teacher train"), (["--strict"], "pass --teacher train"),
    ([*TRAIN, "--supervision", "kk@4"], "kl"), ([*TRAIN, "--supervision", "kl@x"], "a number"),
    ([*TRAIN, "--supervision", "kl@0"], "temperature is 0"),
    ([*TRAIN, "--networks", "none", "--kernel", "fc1"], "no students"),
    ([*TRAIN, "--teacher-mode", "eval"], "mode of a teacher"),
    (["--label-store", "full"], "pass --teacher train"),
    ([*TRAIN, "--label-store", "half"], "one of full, top5"),
    ([*TRAIN, "--label-store", "top9"], "9"),
    ([*TRAIN, "--label-store", "top2", "--supervision", "kl@4"], "such as cross_entropy"),
    (["--teacher", "train", "--teacher-network", "convne"], "convnet"),
    ([*TRAIN[:-1], "0"], "epochs is 0"),
    (["--teacher", "train"], "depth is 3, expected at most 2"),
    (["--teacher", ""], "names none"), (["--teacher", "nobody"], "holds no artefact"),
    (["--teacher", "nobody", "--teacher-epochs", "2"], "is of a teacher that is trained"),
], ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_what_cannot_be_is_told_before_anything_is_trained(files, capsys, monkeypatch, more, told):
    monkeypatch.setattr("dd_jax.run.networks.fit", None)
    assert main(words(files, *named(*more))) == 2
    assert told in capsys.readouterr().err
    assert not (files / "out.json").exists()


def test_a_protocol_of_squared_errors_is_refused(files, capsys):
    saved(files / "run", evaluation=MLP.varied(loss="squared_error").plain())
    assert main(words(files, *named(*TRAIN))) == 2
    assert "squared error to the set's labels" in capsys.readouterr().err


def test_a_teacher_of_another_normaliser_and_one_that_is_too_weak(files, capsys):
    data = ["--data", str(files / "data.npz"), *named()]
    made = ["prepare", "teacher", *data, "--artefacts", str(files / "artefacts"), "--network",
            "mlp", "--width", "4", "--epochs", "1"]
    with pytest.warns(UserWarning, match="the teacher mlp classifies .* expected 53.3 %"):
        assert main([*made, "--committee", "2"]) == 0
    said = capsys.readouterr().out
    assert "should reach" in said and said.count("mlp") == 2 and len(kept(files)) == 2
    assert main([*made, "--strict"]) == 2
    assert "expected 53.3 %" in capsys.readouterr().err
    assert main(words(files, *named("--teacher", kept(files)[0]))) == 2
    assert "another normaliser" in capsys.readouterr().err


def test_a_set_prepared_with_the_same_normaliser_shares_its_teacher(files, capsys):
    from dd_jax.data import load, standardise

    data = load(str(files / "data.npz"), class_names=["cat", "dog", "owl"])
    own = standardise(data.train)
    path, _ = saved(files / "run", evaluation=MLP.plain(), normaliser=own)
    assert isinstance(store.load(path).normaliser, Normaliser)
    assert main(["prepare", "teacher", "--data", str(files / "data.npz"), *named(), "--artefacts",
                 str(files / "artefacts"), "--network", "mlp", "--width", "4", "--epochs",
                 "2"]) == 0
    assert main(words(files, *named(*TRAIN, "--no-random"))) == 0
    assert len(kept(files)) == 1


def test_help_names_the_options(capsys):
    for asked, word in ((["prepare", "teacher", "--help"], "--committee"),
                        (["evaluate", "--help"], "--teacher-network")):
        with pytest.raises(SystemExit):
            main(asked)
        assert word in capsys.readouterr().out
    assert main(["prepare", "--help"]) == 0
    assert "or teacher" in capsys.readouterr().out
