"""`evaluate` of sets of any shape: every test is checked first, and baselines are made once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dd_jax import evaluate
from dd_jax.cli.main import main
from dd_jax.errors import ConfigError
from dd_jax.evaluate import baselines, protocol
from tests.store.test_any_shape import IMAGE, K, saved

MLP = protocol("t", network="mlp", width=4, depth=1, epochs=2, batch_size=8, seeds=2, full_epochs=2)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A set of uint8 images, class numbers, weights, 3, 1 and 7 images and a label store."""
    monkeypatch.delenv("DD_JAX_ARTEFACTS")  # so that they are beside the run
    rng = np.random.default_rng(0)
    labels = np.arange(30) % K
    images = rng.integers(0, 256, (30, *IMAGE), np.uint8)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    (tmp_path / "run").mkdir()
    saved(tmp_path / "run", evaluation=MLP.plain())
    return tmp_path


def words(files, *more):
    return ["evaluate", str(files / "run" / "a.safetensors"), "--data", str(files / "data.npz"),
            "--json", str(files / "out.json"), *more]


def results(files):
    return json.loads((files / "out.json").read_text())["results"]


def test_networks_kernel_and_baselines(files, capsys, monkeypatch):
    asked = words(files, "--networks", "mlp,convnet", "--kernel", "fc1", "--full")
    assert main(asked) == 0
    mlp, convnet, kernel = first = results(files)
    for found in (mlp, convnet):
        assert all(0 <= found[name] <= 1 for name in ("accuracy_mean", "random_mean", "full_mean"))
        assert len(found["accuracies"]) == 2
    assert 0 <= kernel["accuracy_mean"] <= 1 and kernel["random_mean"] is not None
    kept = {path.name for path in (files / "artefacts").iterdir() if path.is_dir()}
    assert sorted(name.split("-")[0] for name in kept) == ["full_accuracy", "full_accuracy",
                                                           "random_accuracy", "random_accuracy"]

    monkeypatch.setattr(baselines, "evaluate_random", None)
    monkeypatch.setattr(baselines, "evaluate_full", None)
    assert main(asked) == 0
    seconds = {"seconds": 0}
    assert [{**r, **seconds} for r in results(files)] == [{**r, **seconds} for r in first]
    elsewhere = ["--artefacts", str(files / "artefacts")]
    (files / "other").mkdir()
    assert main(words(files, "--networks", "mlp", "--full", *elsewhere)) == 0
    assert "all data" in capsys.readouterr().out


@pytest.mark.parametrize("more,told", [
    (["--networks", "mlp,vgg11"], "4x4"), (["--networks", "mlp,convne"], "convnet"),
    (["--networks", "mlp", "--kernel", "convnet4"], "4x4"), (["--json", "{folder}"], "no file can"),
    (["--json", "{folder}/data.npz/a.json"], "no file can"), (["--seeds", "0"], "seeds is 0"),
    (["--epochs", "0"], "epochs is 0"), (["--artefacts", "{folder}/data.npz"], "data.npz"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_everything_is_checked_before_anything_is_trained(files, capsys, monkeypatch, more, told):
    monkeypatch.setattr(evaluate, "evaluate_progressive", None)
    assert main(words(files, *(word.format(folder=files) for word in more))) == 2
    assert told in capsys.readouterr().err
    assert not (files / "out.json").exists()


def test_finished_figures_are_kept_where_a_later_test_fails(files, capsys, monkeypatch):
    real, calls = evaluate.evaluate_progressive, []

    def fails_at_the_second(*args, **options):
        calls.append(options)
        if len(calls) == 2:
            raise ConfigError("no more", fix="buy some")
        return real(*args, **options)

    monkeypatch.setattr(evaluate, "evaluate_progressive", fails_at_the_second)
    assert main(words(files, "--networks", "mlp,convnet", "--no-random")) == 2
    said = capsys.readouterr()
    assert "no more" in said.err and "mlp" in said.out
    assert [found["network"] for found in results(files)] == ["mlp"]


def test_a_set_that_has_more_of_a_class_than_the_data_has_no_random_baseline(files):
    rng = np.random.default_rng(0)
    few = np.array([0, 1, 2] * 4 + [0, 1])  # four of the third class, of which the set has seven
    images = rng.integers(0, 256, (len(few), *IMAGE), np.uint8)
    np.savez(files / "data.npz", x_train=images, y_train=few, x_test=images, y_test=few)
    assert main(words(files)) == 0
    assert results(files)[0]["random_mean"] is None


def test_a_lost_label_store_is_told(files, capsys):
    (files / "run" / "a.labels.safetensors").unlink()
    assert main(words(files)) == 2
    assert "not beside it" in capsys.readouterr().err
