"""The budget of a set: images stored per class and bytes stored, also where more are shown."""

from __future__ import annotations

import numpy as np
import pytest

from dd_jax import store
from dd_jax.store.record import array_bytes
from tests.store.tiny_sets import tiny


def test_without_a_note_the_images_are_what_is_stored():
    plain = tiny(count=6)
    assert plain.ipc == 3
    assert plain.stored_bytes == array_bytes(plain.synthetic) == 4 * (6 * 12 + 6 * 2 + 1)


def test_a_note_of_the_recipe_counts_and_survives_the_file(tmp_path):
    noted = tiny(count=8, recipe={"method": "idc", "ipc": 1, "stored_bytes": 112,
                                   "shown_images": 8})
    assert (noted.ipc, noted.stored_bytes) == (1, 112)
    again = store.load(store.save(tmp_path / "set.safetensors", noted))
    assert (again.ipc, again.stored_bytes) == (1, 112)
    assert again.synthetic.images.shape[0] == 8
    assert "112" in store.summary(again)


@pytest.mark.parametrize("ipc, expected", [(0.9, 0.9), (1.5, 1.5), (2.0, 2)])
def test_a_budget_may_be_a_fraction_of_images(tmp_path, ipc, expected):
    noted = tiny(count=8, recipe={"ipc": ipc, "shown_images": 8})
    again = store.load(store.save(tmp_path / "set.safetensors", noted))
    assert noted.ipc == again.ipc == expected and type(again.ipc) is type(expected)


@pytest.mark.parametrize("value", [True, 0, -1, -1.5, "3", None, [2], {"ipc": 3}, float("inf")],
                         ids=repr)
@pytest.mark.parametrize("name", ["ipc", "stored_bytes"])
def test_a_senseless_note_is_not_believed(name, value):
    odd = tiny(count=4, recipe={name: value, "shown_images": 4})
    plain = tiny(count=4, recipe={})
    assert getattr(odd, name) == getattr(plain, name)
    assert isinstance(getattr(odd, name), (int, np.integer))


def test_half_a_byte_is_not_believed():
    odd = tiny(count=4, recipe={"stored_bytes": 1.5, "shown_images": 4})
    assert odd.stored_bytes == tiny(count=4).stored_bytes


def test_a_note_is_not_believed_of_a_selection():
    noted = {"ipc": 1, "stored_bytes": 112, "shown_images": 8}
    assert tiny(count=4, recipe=noted).ipc == 2
    assert tiny(count=4, recipe=noted).stored_bytes == tiny(count=4).stored_bytes
