"""A bank of trained networks: which pair is drawn, how its ends are mixed, and for how long."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.data import standardise
from dd_jax.errors import ConfigError
from dd_jax.pools.bank import bank_pool, train_bank
from tests.laws import members


def numbered(count=4):
    """Ends that say which pair they are: initial 10 i, trained 10 i + 1."""
    def end(offset):
        place = 10.0 * jnp.arange(count) + offset
        return {"params": {"w": place[:, None]}, "batch_stats": {"m": place}}

    return end(0.0), end(1.0)


def draws(pool, steps=400):
    """Drawn parameters and statistics of some steps."""
    def step(state, key):
        seen = pool.draw(state, key)
        return pool.advance(state, None, key), (seen["params"]["w"][0], seen["batch_stats"]["m"])

    keys = jax.random.split(jax.random.key(1), steps)
    state = pool.init(jax.random.key(0), None)
    return jax.tree.map(np.asarray, jax.jit(lambda: jax.lax.scan(step, state, keys)[1])())


def test_a_point_on_the_line_between_the_ends_of_a_random_pair():
    params, statistics = draws(bank_pool(numbered()))
    pair, place = np.divmod(params, 10.0)
    np.testing.assert_allclose(statistics, 10 * pair + 1)  # those of the trained end
    assert np.all((place >= 0) & (place <= 1))
    assert np.all(np.abs(np.bincount(pair.astype(int), minlength=4) - 100) < 40)
    for i in range(4):  # the place does not depend on the pair, and is uniform
        assert abs(place[pair == i].mean() - 0.5) < 0.12
    assert abs(place.std() - 12**-0.5) < 0.03


def test_trained_ends_alone():
    params, _ = draws(bank_pool(numbered(), interpolated=False))
    assert set(params.tolist()) == {1.0, 11.0, 21.0, 31.0}


def test_a_draw_lasts_until_the_pool_advances():
    pool = bank_pool(numbered())
    state = pool.init(jax.random.key(0), None)
    first, again = (pool.draw(state, jax.random.key(i))["params"]["w"] for i in range(2))
    assert first == again
    assert pool.draw(pool.advance(state, None, jax.random.key(2)), None)["params"]["w"] != first


def test_mixed_networks_are_usable_and_the_bank_comes_from_training(toy):
    network = nets.convnet(members.SPEC, depth=1, width=2, norm="batch")
    bank = train_bank(network, toy, 3, normaliser=standardise(toy), key=jax.random.key(0), steps=4,
                      batch_size=16, optimizer=optax.sgd(0.05))
    kernel = np.asarray(bank[1]["params"]["head"]["kernel"])
    assert len({kernel[i].tobytes() for i in range(3)}) == 3
    pool = bank_pool(bank)
    state = pool.init(jax.random.key(1), None)
    variables = pool.draw(state, jax.random.key(2))
    assert network.apply(variables, jnp.ones((2, *members.SHAPE))).logits.shape == (2, 2)
    i, share = int(state.current), float(state.share)
    for mixed, a, b in zip(jax.tree.leaves(variables["params"]),
                           *(jax.tree.leaves(end["params"]) for end in bank)):
        np.testing.assert_allclose(mixed, share * a[i] + (1 - share) * b[i], rtol=1e-5, atol=1e-6)
    assert np.any(bank[0]["params"]["head"]["kernel"] != kernel)


@pytest.mark.parametrize("case, message", [
    ("tree", "different trees"),
    ("shape", "shapes"),
    ("count", "hold"),
    ("empty", "hold"),
    ("nothing", "different trees"),
])
def test_ends_that_do_not_fit_are_refused(case, message):
    initial, trained = numbered()
    if case == "tree":
        initial = {"params": initial["params"]}
    elif case == "shape":
        initial = jax.tree.map(lambda x: x[:2], initial)
    elif case == "count":
        initial, trained = ({**end, "batch_stats": {"m": end["batch_stats"]["m"][:2]}}
                            for end in (initial, trained))
    elif case == "empty":
        initial, trained = jax.tree.map(lambda x: x[:0], (initial, trained))
    else:
        initial, trained = (), ()
    with pytest.raises(ConfigError, match=message):
        bank_pool((initial, trained))


def test_a_bank_of_nothing_and_images_on_the_host_are_refused(toy):
    network = nets.mlp(members.SPEC, width=4)
    settings = dict(normaliser=standardise(toy), key=jax.random.key(0), steps=1,
                    optimizer=optax.sgd(0.1))
    with pytest.raises(ConfigError, match="count is 0"):
        train_bank(network, toy, 0, **settings)
    with pytest.raises(ConfigError, match="on the device"):
        train_bank(network, dataclasses.replace(toy, images=np.asarray(toy.images)), 1, **settings)
