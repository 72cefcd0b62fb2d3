"""What selections hold in memory: told beforehand, linear, as the compiler has it, in bounds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.backend import in_chunks
from dd_jax.data import from_arrays, identity
from dd_jax.errors import ConfigError
from dd_jax.select import (
    Budget,
    craig,
    facility_location,
    greedy_choices,
    looks,
    medoids,
    rules,
    select,
)
from dd_jax.select.gradients import LastLayer
from dd_jax.select.memory import Memory, Phase, Sizes, bytes_of, nothing, planned
from dd_jax.select.selector import sizes_of, within
from tests.laws.test_selector_laws import SELECTORS, known

ROOM = 10**12
FACTOR = 1.5  # between what is told and what the compiler says


def of(total):
    """Sizes that are all as many times larger as there are images."""
    return Sizes(total, total // 8, total // 8, count=16, classes=8, width=32, networks=3, epochs=5)


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_tells_and_is_linear_in_the_images(name):
    small, large = (planned(SELECTORS[name].memory, of(total), ROOM) for total in (2**13, 2**14))
    assert sum(small.host.values()) > 0 and small.device > 0
    assert sum(large.host.values()) <= 2 * sum(small.host.values())
    for phase, held in small.phases.items():
        whole, block = sum(large.phases[phase].values()), large.phases[phase].get("block", 0)
        assert whole - block <= 2 * (sum(held.values()) - held.get("block", 0)), phase
        assert block <= 2**30  # 2^24 distances with what they are compared with
    if set(small.phases) == {"choice"} and not small.blocks:
        assert large.device > 1.9 * small.device


def test_what_doubles_and_what_does_not():
    herding = [planned(SELECTORS["herding"].memory, of(total), ROOM) for total in (1000, 2000)]
    assert herding[1].device == 2 * herding[0].device
    assert herding[1].host["features"] == 2 * herding[0].host["features"] == 2000 * 32 * 4
    el2n = [planned(SELECTORS["el2n"].memory, of(total), ROOM) for total in (1000, 2000)]
    assert el2n[1].device == 2 * el2n[0].device
    assert el2n[1].host == {name: 2 * size for name, size in el2n[0].host.items()}


def compiled(program, *args, **static):
    """Bytes of a program: of what it is given, gives and holds meanwhile."""
    found = program.lower(*args, **static).compile().memory_analysis()
    return (found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
            - found.alias_size_in_bytes)


@pytest.mark.parametrize("total", [1000, 2000, 6000])
@pytest.mark.parametrize("name", ["herding", "k_center", "facility_location", "el2n", "graph_cut",
                                  "k_means", "craig"])
def test_the_compiler_says_the_same(name, total):
    points, valid = jnp.zeros((total, 64)), jnp.ones(total, bool)
    sizes = Sizes(total, total, total, count=10, classes=10, width=64)
    held = planned(SELECTORS[name].memory, sizes, ROOM)
    block = held.blocks.get("choice")
    said = {
        "herding": lambda: compiled(greedy_choices._herding, points, valid, 10),
        "k_center": lambda: compiled(greedy_choices._k_center, points, valid, 10, points[:, 0]),
        "facility_location": lambda: compiled(
            facility_location._covered, points, valid, 10, block=block),
        "graph_cut": lambda: compiled(greedy_choices._graph_cut, points, valid, 10, 1.0),
        "k_means": lambda: compiled(medoids._medoids, points, valid, jax.random.key(0), count=10,
                                    iterations=10, chunk=block),
        "craig": lambda: compiled(craig._craig, LastLayer(points[:, :10], points), valid, 10,
                                  block=block),
        "el2n": lambda: compiled(jax.jit(rules.top, static_argnums=2), points[:, 0], valid, 10),
    }[name]()
    assert said / FACTOR <= sum(held.phases["choice"].values()) <= said * FACTOR


@pytest.mark.parametrize("width", [8, 64])
def test_the_compiler_says_the_same_of_a_look(width):
    data = from_arrays(np.zeros((2048, 28, 28, 1), np.uint8), np.arange(2048) % 10)
    network = nets.convnet(data.spec, width=width, depth=3)

    def look(variables, images, labels):
        return in_chunks(lambda x: network.apply(variables, x).features, images)

    said = compiled(looks._looked, look, network.init(jax.random.key(0)), data.images, data.labels,
                    identity(data.spec.shape))
    sizes = Sizes(2048, 2048, 205, classes=10, width=looks.feature_width(network, data))
    held = planned(Memory(nothing, {"look": looks.look_phase(network, data)}), sizes, ROOM)
    assert held.blocks == {"look": 2048} and said / FACTOR <= held.device <= said * FACTOR


@pytest.mark.parametrize("name", [name for name in SELECTORS if SELECTORS[name].blocked])
@pytest.mark.parametrize("budget", [Budget(per_class=5), Budget(total=9, within="set")], ids=str)
def test_smaller_blocks_choose_the_same_images(name, budget):
    data, have = known()
    sizes = sizes_of(data, budget, width=4, networks=3, epochs=6)
    usual = planned(SELECTORS[name].memory, sizes, ROOM)
    [phase] = usual.blocks
    row = SELECTORS[name].memory.phases[phase].row(sizes)
    fixed = sum(usual.phases[phase].values()) - usual.blocks[phase] * row
    bound = max(fixed + 3 * row, *(sum(held.values()) for other, held in usual.phases.items()
                                   if other != phase), 0)
    fitted, held = within(SELECTORS[name], sizes, bound)
    assert held.device <= bound and held.blocks[phase] <= usual.blocks[phase]
    wanted, found = (select(one, data, have, budget, key=jax.random.key(0))
                     for one in (SELECTORS[name], fitted))
    assert found.rows.tolist() == wanted.rows.tolist()
    np.testing.assert_allclose(found.weights, wanted.weights, rtol=1e-5)


def test_a_bound_without_room_for_one_row_is_refused_by_what_it_takes():
    memory = Memory(nothing, {"choice": Phase(lambda s: {"features": 4000}, lambda s: 100,
                                              lambda s: 64)})
    with pytest.raises(ConfigError, match=r"memory is 4.0 kB.* holds 4.1 kB at least"):
        planned(memory, of(80), 4000)
    assert planned(memory, of(80), 4100).blocks == {"choice": 1}
    assert planned(memory, of(80), 10**6).blocks == {"choice": 64}


@pytest.mark.parametrize("text,size", [
    ("4GB", 4 * 10**9), ("4 gb", 4 * 10**9), ("1.5MiB", 3 * 2**19), ("2k", 2000), ("10", 10),
    (7, 7), ("1Ti", 2**40),
])
def test_bytes_as_they_are_written(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "4 PB", "1e9", True, None, "4GBs", 1.5e-3])
def test_what_is_no_number_of_bytes(text):
    with pytest.raises(ConfigError, match="expected a number of bytes"):
        bytes_of(text)
