"""Sets that grow block by block: the earlier images stay, or move by a share of their updates."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dd_jax as dd
from dd_jax.distill import boosted, complete, grown, package
from dd_jax.errors import ConfigError
from tests.laws import members

SMALL = dict(width=4, depth=1, batch_size=8, steps=3)
RAT = dict(window=2, inner_steps=3, inner_rate=0.02, normaliser="standardise", per_class=1,
           augmentation="none", labels="learned", image_rate=0.1, label_rate=0.1)


def build(count):
    return dd.methods.recipe("rat_bptt", members.toy_data(), ipc=count, **SMALL, **RAT)


def by_class(synthetic):
    return np.asarray(synthetic.images).reshape(members.CLASSES, -1, *members.SHAPE)


def test_earlier_blocks_are_kept_and_every_beginning_is_a_set(tmp_path):
    options = dict(blocks=2, key=1, show_progress=False)
    sets = boosted(build, members.toy_data(), workdir=tmp_path, **options)
    assert [found.ipc for found in sets] == [1, 2]
    for small, large in zip(sets, sets[1:]):
        count = small.ipc
        np.testing.assert_array_equal(by_class(large.synthetic)[:, :count],
                                      by_class(small.synthetic))
        labels = np.asarray(large.synthetic.labels).reshape(members.CLASSES, -1, members.CLASSES)
        np.testing.assert_array_equal(labels[:, :count].reshape(-1, members.CLASSES),
                                      small.synthetic.labels)
        start = build(large.ipc).start(members.toy_data(), jax.random.key(0)).images
        assert np.all(by_class(large.synthetic)[:, count:] != by_class(
            large.synthetic._replace(images=start))[:, count:])
    alone = dd.distill(build(1), members.toy_data(), key=1, show_progress=False)
    np.testing.assert_array_equal(alone.synthetic.images, sets[0].synthetic.images)
    again = boosted(build, members.toy_data(), workdir=tmp_path, **options)
    np.testing.assert_array_equal(again[-1].synthetic.images, sets[-1].synthetic.images)


def test_no_block_has_a_key_of_the_outer_loop_s_consumers(monkeypatch):
    keys, key = [], jax.random.key(4)

    def recorded(plan, data, *, key, **options):
        recipe = complete(plan, data)
        keys.append(key)
        shape = (members.CLASSES * recipe.settings["ipc"], *members.SHAPE)
        labels = jnp.repeat(jnp.eye(members.CLASSES), recipe.settings["ipc"], axis=0)
        return package(recipe, dd.SyntheticSet(jnp.zeros(shape), labels), data)

    monkeypatch.setattr(sys.modules["dd_jax.distill.boosted"], "distill", recorded)
    boosted(build, members.toy_data(), blocks=5, key=key)
    bits = [tuple(jax.random.key_data(each).tolist()) for each in keys]
    taken = [tuple(jax.random.key_data(jax.random.fold_in(key, i)).tolist()) for i in range(6)]
    assert keys[0] is key and len({*bits, *taken}) == 11


@pytest.mark.parametrize("several", [False, True], ids=["one optimiser", "by group"])
def test_earlier_images_move_by_their_share(several):
    sgd = optax.sgd(0.5)
    recipe = dd.methods.recipe("dm", members.toy_data(), ipc=2, **SMALL)
    recipe = grown(recipe.__class__(**{**vars(recipe), "optimizer": {"images": sgd} if several
                                       else sgd}), members.start(labels="one_hot"), share=0.25)
    optimizer = recipe.optimizer["images"] if several else recipe.optimizer
    images = jnp.ones((4 * members.CLASSES, *members.SHAPE))
    params = {"images": images, "log_learning_rate": jnp.ones(8)}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    found = np.asarray(updates["images"]).reshape(members.CLASSES, 4, -1)
    assert set(found[:, :2].ravel()) == {-0.125} and set(found[:, 2:].ravel()) == {-0.5}
    assert set(np.asarray(updates["log_learning_rate"])) == {-0.5}


@pytest.mark.parametrize("options,said", [
    (dict(blocks=0), "blocks is 0"), (dict(blocks=2, share=1.5), "share is 1.5"),
])
def test_numbers_that_cannot_be(options, said):
    with pytest.raises(ConfigError, match=said):
        boosted(build, members.toy_data(), **options)


@pytest.mark.parametrize("name,changes,said", [
    ("podd", dict(window=2, inner_steps=2, normaliser="standardise", augmentation="none"),
     "podd cannot grow: its images overlap"),
    ("dd", {}, "dd cannot grow: its images belong to steps"),
    ("linba", dict(bases=3), "linba cannot grow: its images are not stored one by one"),
])
def test_sets_that_cannot_grow(name, changes, said):
    with pytest.raises(ConfigError, match=said):
        boosted(lambda n: dd.methods.recipe(name, members.toy_data(), ipc=n, **SMALL, **changes),
                members.toy_data(), blocks=2)
