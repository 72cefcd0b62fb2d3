"""Every setting that cannot be is refused by its name, before anything is made from the data."""

from __future__ import annotations

import numpy as np
import pytest

from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError, DataError, DDJaxError
from dd_jax.store.artefacts import ArtefactStore
from tests.laws import members
from tests.methods import tiny

NAN = float("nan")
# Method, a setting and its value (several as a dict), what the error says ("": the setting's name).
BAD = [
    ("ast", "adjoint", "two_pass", "two_pass.*momentum.*checkpointed"),
    ("ast", "inner_steps", 1, "1 inner steps cannot pass 2 waypoints; pass inner_steps=2"),
    ("ast", "shake", -1.0, "shake is -1.0"),
    ("ast", "waypoint_weights", "adaptiv", "'adaptiv'.*'adaptive'"),
    ("att", "average", 0.0, "average is 0.0"),
    ("cafe", "evaluation_epochs", 0, ""),
    ("cafe", "last_weight", -0.1, ""),
    ("cafe", dict(max_epochs=3, window=5, max_uses=9), ..., "max_epochs"),
    ("cafe", "measure_size", 0, ""),
    ("cafe", "norm", "batch", "norm"),
    ("cafe", "start", "dark", "dark"),
    ("cafe", "still", -1.0, ""),
    ("cafe", "uses", 0, ""),
    ("datadam", "augmentation", "dsaa", "dsaa"),
    ("datadam", "depth", 1, ""),
    ("datadam", "feature_weight", -1.0, ""),
    ("datadam", "learning_rate", -1.0, ""),
    ("datadam", "norm", "bach", "bach"),
    ("datadam", "normaliser", "zcaa", "zcaa"),
    ("datadam", "power", 0, ""),
    ("datadam", "power", 1.5, ""),
    ("datadam", "scale", float("inf"), ""),
    ("datadam", "start", "reall", "reall"),
    ("datadam", "steps", 0, ""),
    ("datm", "growth_steps", 5, "growth_steps is 5"),
    ("datm", "label_rate", -1.0, "label_rate is -1.0"),
    ("datm", dict(max_start=2, first_max_start=3, growth_steps=5), ...,
     "begins at 3 and ends at 2"),
    ("datm", "min_start", 1, "max_start is 1"),
    ("datm", "threshold", -1.0, "threshold is -1.0"),
    ("dc", "distance", "euclid", "euclid"),
    ("dc", "epochs", -1, ""),
    ("dc", "network_rate", -0.1, ""),
    ("dc", "networks", 0, ""),
    ("dc", "start", "reel", "reel"),
    ("dc", "uses", 0, ""),
    ("dcc", "warm_networks", -1, ""),
    ("dcc", "warm_networks", 1001, ""),
    ("dcc", dict(warm_uses=11, uses=10), ..., "warm_uses"),
    ("dd", dict(batches=3, ipc=4), ..., "batches is 3.*batches=4"),
    ("dd", "epochs", 0, "epochs is 0"),
    ("dd", "image_rate", -0.1, "image_rate is -0.1"),
    ("dd", "initialisation", "fxed", "'fxed'.*'fixed'"),
    ("dd", dict(initialisation="fixed", networks=2), ..., "networks is 2.*networks=1"),
    ("dd", "network_seed", -1, "network_seed is -1"),
    ("dd", "rate", 0.0, "rate is 0.*logarithm.*rate=0.01"),
    ("dd", "rate", "0.1", "rate is '0.1'"),
    ("dream", "distance", "l1", "l1"),
    ("dream", "every", 0, ""),
    ("dsa", "augmentation", "dsaa", "dsaa"),
    ("dsac", "warm_uses", True, ""),
    ("ftd", "average", 1.5, "average is 1.5"),
    ("ftd", "radius", -0.1, "radius is -0.1"),
    ("idc", "distance", "l1", "l1"),
    ("idc", "factor", 0, ""),
    ("idc", "mix", 1.5, "mix is 1.5"),
    ("idc", "mix", 2.0, ""),
    ("idc", "most", 0, ""),
    ("idc", "train_images", 0, ""),
    ("idm", "augmentation", "dsaa", "dsaa"),
    ("idm", "factor", 0, ""),
    ("idm", "forget", 0, ""),
    ("idm", "ipc", 9, "32"),  # 36 of the 32 real images of a class
    ("idm", "label_weight", -0.5, ""),
    ("idm", "momentum", "high", "momentum|high"),
    ("idm", "queue_batch_size", 0, ""),
    ("idm", "queue_capacity", 0, ""),
    ("idm", "queue_every", 0, ""),
    ("idm", "queue_start", 0, ""),
    ("idm", "queue_start", 3, "start"),
    ("idm", "queue_steps", 0, ""),
    ("idm", "queue_steps", 17, "queue_steps.*64 images"),
    ("idm", "queue_trained", 0, ""),
    ("kip", "batch_size", 0, "batch_size is 0"),
    ("kip", "evaluation", "kipp", "'kip'"),
    ("kip", "evaluation_steps", 0, "evaluation_steps is 0"),
    ("kip", "kernel", "fc", "unknown kernel 'fc'"),
    ("kip", "labels", "soft", "fixed, learned"),
    ("kip", "learning_rate", -1.0, "learning_rate is -1.0"),
    ("kip", "ridge", -1.0, "ridge is -1.0"),
    ("kip", "start", "rael", "'real'"),
    ("kip", "steps", 0, "steps is 0"),
    ("krr_st", "ipc", 33, "66 images of 64"),
    ("krr_st", "pool_decay", -1.0, ""),
    ("krr_st", "teacher", "resnet", "resnet18"),
    ("krr_st", "teacher_steps", 0, ""),
    ("label_distillation", "label_rate", NAN, "label_rate is nan"),
    ("label_distillation", "window", 0, "window is 0"),
    ("linba", "adjoint", "two_pass", "two_pass.*momentum"),
    ("linba", dict(bases=40, ipc=2), ..., "40 bases.*fewer bases"),
    ("linba", "clip", -1.0, "clip is -1"),
    ("linba", "downsample", 3, "downsample is 3"),
    ("linba", "ipc", 0.5, "ipc is 0.5"),
    ("m3d", "batch_size", 1.5, ""),
    ("m3d", "evaluation_epochs", 0, ""),
    ("m3d", "factor", 0, ""),
    ("m3d", "ipc", 9, "32"),
    ("m3d", "iterations", 0, ""),
    ("m3d", "kernel", "gausian", "kernel|gausian"),
    ("m3d", "learning_rate", NAN, ""),
    ("m3d", "matching", "idc_machting", "idc_machting"),
    ("m3d", "mix", 2.0, ""),
    ("m3d", "momentum", -0.1, ""),
    ("m3d", "most", 0, ""),
    ("m3d", "uses", 0, ""),
    ("mtt", "adjoint", "tow_pass", "adjoint 'tow_pass'.*'two_pass'"),
    ("mtt", "augmentation", "das", "'das'.*'dsa'"),
    ("mtt", "batch_size", 0, "batch_size is 0"),
    ("mtt", "expert_rate", NAN, "expert_rate is nan"),
    ("mtt", "image_rate", -1.0, "image_rate is -1.0"),
    ("mtt", "inner_steps", 0, "inner_steps is 0"),
    ("mtt", "max_start", 9, "max_start=2"),
    ("mtt", "momentum", -0.5, "momentum is -0.5"),
    ("mtt", "normaliser", "zac", "'zac'.*'zca'"),
    ("mtt", "rate", -0.1, "rate is -0.1"),
    ("mtt", "rate", 0.0, "rate is 0"),
    ("mtt", "rate_rate", -1e-5, "rate_rate is -1e-05"),
    ("mtt", "span", 4, "need experts of 4 epochs, and these have 3"),
    ("mtt", "start", "rael", "'rael'.*'real'"),
    ("ncfm", "alpha", 1.5, ""),
    ("ncfm", "bank_steps", 0, ""),
    ("ncfm", "ipc", 9, "36"),
    ("ncfm", "sampler", "tile", "tiled"),
    ("ncfm", dict(sampler="tiled", frequencies=33), ..., "divisor"),
    ("ncfm", "scale", -1.0, ""),
    ("podd", "columns", 50, "patches.*places"),
    ("podd", "grid_rows", 3, "grid_rows is 3.*2 classes"),
    ("podd", "ipc", 0, "ipc is 0.*ipc=0.5"),
    ("podd", "ipc", 0.4, "ipc is 0.4.*at least one image"),
    ("podd", "label_ipc", 0, "label_ipc is 0"),
    ("podd", "labels", "soft", "'soft'.*fixed"),
    ("rat_bptt", "adjoint", "two_pass", "two_pass.*momentum.*checkpointed"),
    ("rat_bptt", "augmentation", "flip_rotat", "'flip_rotat'.*'flip_rotate'"),
    ("rat_bptt", "cap", 0.0, "cap is 0.*cap=2.0"),
    ("rat_bptt", "cap", "2", "cap is '2'.*cap=2.0"),
    ("rat_bptt", dict(classes=1, per_class=2, ipc=2), ..., "classes is 1.*per_class=1"),
    ("rat_bptt", "ipc", 0.5, "ipc is 0.5"),
    ("rat_bptt", "labels", "soft", "'soft'"),
    ("rat_bptt", "patience", 0, "patience is 0"),
    ("rat_bptt", "start", "noize", "'noize'.*'noise'"),
    ("rat_bptt", "window", 7, "horizon"),
    ("rat_bptt", "window_mode", "radnom", "'radnom'.*'random'"),
    ("rcig", "average", 1, "average is 1"),
    ("rfad", "loss", "mse", "squared_error"),
    ("rfad", "networks", 0, "networks is 0"),
    ("rfad", "patience", 0, "patience is 0"),
    ("rfad", "preconditioner_rate", -1.0, ""),
    ("rfad", "ridge", -1.0, ""),
    ("rfad", "validate_every", 0, "validate_every is 0"),
    ("soft_label_dd", "adjoint", "tow_pass", "'tow_pass'.*'two_pass'"),
    ("wmdd", "area", 2.0, ""),
    ("wmdd", "distance", "root", ""),
    ("wmdd", "ipc", 0, ""),
    ("wmdd", "labels", "none", ""),
    ("wmdd", "roll", 9, ""),
    ("wmdd", "statistics_weight", -1.0, ""),
    ("wmdd", "teacher", "resnet", "resnet18"),
    ("wmdd", "temperature", 0.0, ""),
]


@pytest.fixture(autouse=True)
def nothing_is_made(monkeypatch):
    def get(*args, **options):
        raise AssertionError("something was made first")

    monkeypatch.setattr(ArtefactStore, "get", get)


def named(name, setting, value):
    changes = setting if value is ... else {setting: value}
    return "-".join(map(str, (name, *(x for pair in changes.items() for x in pair))))


@pytest.mark.parametrize("name,setting,value,said", BAD, ids=[named(*row[:3]) for row in BAD])
def test_a_setting_that_cannot_be_is_refused(name, setting, value, said):
    with pytest.raises(DDJaxError, match=said or setting):
        tiny.recipe(name, **(setting if value is ... else {setting: value}))


@pytest.mark.parametrize("name", ["cafe", "dcc"])
def test_one_class_is_refused_where_classes_are_told_apart(name):
    """M3D matches each class by itself; of DCC there would be no contrast."""
    one = from_arrays(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8),
                      np.zeros(6, np.int64), num_classes=1)
    with pytest.raises(ConfigError, match="1 class, expected at least 2.*method 'dm'"):
        tiny.recipe(name, one)
    tiny.recipe("m3d", one)


@pytest.mark.parametrize("name,changes", [("linba", {}), ("podd", dict(ordered=False)),
                                          ("podd", {})],
                         ids=["linba", "podd-in-their-order", "podd"])
def test_a_class_without_images_is_named(name, changes):
    toy = members.toy_data()
    data = from_arrays(np.asarray(toy.images), 2 * np.asarray(toy.labels), num_classes=3,
                       allow_missing=True)
    with pytest.raises(DataError, match="class 1 .*has 0 images"):
        tiny.recipe(name, data, ipc=2, **changes)
