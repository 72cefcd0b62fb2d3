"""Views of a store are pure functions of (key, epoch, step), and kept draws give the same ones."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import augment
from dd_jax.augment.mixing import MIXINGS
from dd_jax.errors import ConfigError
from dd_jax.labels.draws import (
    ViewRule,
    draw_shapes,
    drawn_for,
    from_arrays,
    order_of,
    probe,
    pruned_batches,
    show,
    to_arrays,
)
from dd_jax.labels.pruning import Decay, kept_count, pool_draw

KEY = jax.random.key(5)
RULE = ViewRule(images=10, shape=(8, 8, 1), mixing="cutmix@1.0", epochs=4, batch_size=4)


def images(count=10, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 8, 8, 1)).astype(np.float32)


def test_batches_are_as_equal_as_they_can_be():
    assert (RULE.steps, RULE.size, RULE.recorded) == (3, 3, 12)
    for count, limit in ((10, 256), (500, 256), (1000, 256), (7, 2)):
        rule = ViewRule(count, (8, 8, 1), batch_size=limit)
        assert rule.size <= limit and 0 <= count - rule.size * rule.steps < rule.steps


def test_an_epoch_shows_each_image_at_most_once_in_an_order_of_its_own():
    orders = []
    for epoch in range(RULE.epochs):
        rows = [np.asarray(drawn_for(RULE, KEY, epoch * RULE.steps + i).rows) for i in range(3)]
        seen = np.concatenate(rows)
        assert len(set(seen.tolist())) == 9
        np.testing.assert_array_equal(seen, np.asarray(order_of(RULE, KEY, epoch))[:9])
        orders.append(tuple(seen))
    assert len(set(orders)) == RULE.epochs


def by_hand(rule, key, batch, x):
    """The view of one image after another, then the rectangle of its partner."""
    drawn = jax.tree.map(np.asarray, drawn_for(rule, key, batch))
    one = augment.by_name(rule.augmentation, rule.shape)
    seen = np.stack([np.asarray(one.apply(jax.tree.map(lambda leaf, i=i: leaf[i:i + 1], drawn.draw),
                                          jnp.asarray(x[row:row + 1])))[0]
                     for i, row in enumerate(drawn.rows)])
    if not rule.mixing.startswith("cutmix"):
        return seen
    mixed, cut = seen.copy(), drawn.mix
    for i, partner in enumerate(cut["partner"]):
        place = np.s_[cut["top"]:cut["bottom"], cut["left"]:cut["right"]]
        mixed[i][place] = seen[partner][place]
    return mixed


@pytest.mark.parametrize("mixing", ["none", "cutmix@1.0"])
def test_views_are_those_of_each_image_and_its_partner(mixing):
    rule, x = dataclasses.replace(RULE, mixing=mixing), images()
    for batch in (0, 5, 11):
        drawn = drawn_for(rule, KEY, batch)
        seen, _ = show(rule, drawn, jnp.asarray(x)[drawn.rows], None)
        np.testing.assert_allclose(seen, by_hand(rule, KEY, batch, x), atol=1e-6)


def test_labels_are_mixed_as_images_are_and_whole_numbers_left():
    drawn = drawn_for(RULE, KEY, 1)
    x = jnp.asarray(images())[drawn.rows]
    _, labels = show(RULE, drawn, x, jnp.eye(3))
    box = drawn.mix
    share = (box["bottom"] - box["top"]) * (box["right"] - box["left"]) / 64
    wanted = (1 - share) * jnp.eye(3) + share * jnp.eye(3)[box["partner"]]
    np.testing.assert_allclose(labels, wanted, atol=1e-6)
    assert show(RULE, drawn, x, jnp.arange(3))[1].tolist() == [0, 1, 2]


def test_cutmix_by_its_draw_is_cutmix():
    x, labels = jnp.asarray(images()), jnp.eye(10)
    for seed in range(20):
        key = jax.random.key(seed)
        draw = augment.mixing("cutmix@0.5").draw(key, 10, (8, 8, 1))
        found = augment.mixing("cutmix@0.5").apply(draw, x, labels)
        jax.tree.map(np.testing.assert_array_equal, found,
                     augment.cutmix(x, labels, key, probability=0.5))


def test_mixup_is_its_formula_and_its_weight_beta():
    mixing, x = augment.mixing("mixup@0.8"), images()
    draws = jax.vmap(lambda key: mixing.draw(key, 10, (8, 8, 1)))(jax.random.split(KEY, 2000))
    share = np.asarray(draws["share"])
    assert abs(share.mean() - 0.5) < 0.02 and abs(share.var() - 0.25 / 2.6) < 0.01
    one = jax.tree.map(lambda leaf: leaf[0], draws)
    seen, labels = mixing.apply(one, jnp.asarray(x), jnp.eye(10))
    a, p = float(share[0]), np.asarray(one["partner"])
    np.testing.assert_allclose(seen, (1 - a) * x + a * x[p], atol=1e-6)
    np.testing.assert_allclose(labels, (1 - a) * np.eye(10) + a * np.eye(10)[p], atol=1e-6)


@pytest.mark.parametrize("augmentation", ["none", "inception", "dsa", "frepo", "rcig", "idc"])
@pytest.mark.parametrize("mixing", ["none", "cutmix@1.0", "mixup@0.8"])
def test_kept_draws_give_the_same_views_to_the_bit(augmentation, mixing):
    rule = dataclasses.replace(RULE, augmentation=augmentation, mixing=mixing, kept="draws")
    drawn = drawn_for(rule, KEY, 7)
    arrays = to_arrays(rule, drawn)
    assert {n: (x.shape, x.dtype) for n, x in arrays.items()} == {
        n: (s.shape, s.dtype) for n, s in draw_shapes(rule).items()}
    jax.tree.map(np.testing.assert_array_equal, from_arrays(rule, arrays), drawn)
    by_key = drawn_for(dataclasses.replace(rule, kept="key"), KEY, 7)
    for kept, drawn_by_key in zip(jax.tree.leaves(drawn), jax.tree.leaves(by_key)):
        np.testing.assert_allclose(kept, drawn_by_key, rtol=2**-10, atol=1e-6)
    assert not draw_shapes(dataclasses.replace(rule, kept="key"))


def test_windows_and_mirrors_are_kept_exactly():
    rule = dataclasses.replace(RULE, kept="draws")
    by_key = drawn_for(RULE, KEY, 2)
    jax.tree.map(np.testing.assert_array_equal, drawn_for(rule, KEY, 2), by_key)


def test_pruning_keeps_its_share_of_all_batches():
    for ratio, wanted in ((0.0, 12), (0.5, 6), (0.9, 1), (0.975, 1)):
        rule = dataclasses.replace(RULE, pruned=ratio)
        kept = np.asarray(pruned_batches(rule, KEY))
        assert len(kept) == wanted == rule.batches == len(set(kept.tolist()))
        assert (np.diff(kept) > 0).all() and kept.max() < 12
    assert [kept_count(6000, p) for p in (.9, .95, .97, .975)] == [600, 300, 180, 150]
    counts = np.zeros(12)
    half = dataclasses.replace(RULE, pruned=0.5)
    for seed in range(200):
        counts[np.asarray(pruned_batches(half, jax.random.key(seed)))] += 1
    assert (np.abs(counts / 200 - 0.5) < 0.15).all()  # whatever epoch they are of


@pytest.mark.parametrize("pool,steps", [(7, 3), (3, 7), (5, 5), (1, 4), (6, 4)])
def test_a_pool_gives_every_batch_once_before_any_again(pool, steps):
    taken = np.concatenate([np.asarray(pool_draw(KEY, pool, epoch * steps, steps))
                            for epoch in range(12)])
    for first in range(0, len(taken) - pool + 1, pool):
        assert sorted(taken[first:first + pool].tolist()) == list(range(pool))
    if pool > 4:
        rounds = {tuple(taken[f:f + pool]) for f in range(0, len(taken) - pool + 1, pool)}
        assert len(rounds) > 1


def test_the_temperature_of_reused_labels_falls_to_its_floor():
    found = [float(Decay()(epoch)) for epoch in (0, 29, 30, 89, 299)]
    np.testing.assert_allclose(found, [20, 20, 14, 20 * .7**2, 2], rtol=1e-6)


def test_a_probe_tells_augmentations_keys_and_mixings_apart():
    found = [probe(RULE, KEY), probe(RULE, jax.random.key(6)),
             probe(dataclasses.replace(RULE, augmentation="dsa"), KEY),
             probe(dataclasses.replace(RULE, mixing="mixup@0.8"), KEY)]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    assert found[0] == probe(RULE, KEY)


@pytest.mark.parametrize("changes,words", [
    ({"augmentation": "crop"}, "unknown augmentation"), ({"mixing": "cutup"}, "unknown mixing"),
    ({"mixing": "cutmix@2"}, "cutmix is 2.0"), ({"mixing": "mixup@a"}, "expected a number"),
    ({"mixing": "mixup@0"}, "mixup is 0.0"), ({"mixing": "none@1"}, "has strength 1.0"),
    ({"pruned": 1.0}, "pruned is 1.0"), ({"pruned": -0.1}, "pruned is"), ({"epochs": 0}, "epochs"),
    ({"kept": "seed"}, "way of keeping"), ({"images": 0}, "images is 0"),
    ({"shape": (8, 8)}, "image shape"), ({"epochs": 10**8}, "too large")])
def test_rules_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(RULE, **changes)
    assert set(MIXINGS) == {"none", "cutmix", "mixup"}
