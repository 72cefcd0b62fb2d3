"""`show` and `export` of sets of any shape."""

from __future__ import annotations

import pytest

from dd_jax.cli.main import main
from tests.store.test_any_shape import saved


def test_show_tells_of_images_classes_weights_and_label_store(tmp_path, capsys):
    path, _ = saved(tmp_path)
    assert main(["show", str(path), "--grid", str(tmp_path / "a.png")]) == 0
    said = capsys.readouterr().out
    for part in ("uint8", "int32, classes", "1 to 7", "weights", "a.labels.safetensors", "picture"):
        assert part in said, part
    assert (tmp_path / "a.png").stat().st_size > 0


@pytest.mark.parametrize("to, names", [
    ("npz", ["a.npz"]),
    ("safetensors", ["a_plain.safetensors", "a_plain.labels.safetensors"]),
    ("torch", ["a_torch.safetensors", "a_torch.labels.safetensors"]),
    ("png", ["000.png"]),
])
def test_export_names_what_it_wrote(tmp_path, capsys, to, names):
    path, made = saved(tmp_path)
    assert main(["export", str(path), "--to", to]) == 0
    written = capsys.readouterr().out.split()
    assert [word.rpartition("/")[2] for word in written][:len(names)] == names
    assert len(written) == (11 if to == "png" else len(names))
    assert main(["export", str(path), "--to", to]) == 2


def test_a_lost_label_store_is_told(tmp_path, capsys):
    path, _ = saved(tmp_path)
    (tmp_path / "a.labels.safetensors").unlink()
    assert main(["show", str(path)]) == 2
    assert "a.labels.safetensors is not beside it" in capsys.readouterr().err
