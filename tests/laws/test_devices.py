"""Four host devices give what one gives: real batches sharded by rows, the set replicated."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
import dd_jax as dd
from tests.laws import members
assert len(jax.devices()) == 4
toy = members.toy_data()
small = dict(width=4, depth=1, steps=3)
auto = jax.sharding.AxisType.Auto  # the compiler places intermediate values
mesh = jax.make_mesh((4,), ("rows",), axis_types=(auto,))
for name, extra, axes in (
    ("frepo", dict(batch_size=16, pool_size=2), P("rows")),
    ("dm", dict(batch_size=8), P(None, "rows")),
):
    recipe = dd.methods.recipe(name, toy, **small, **extra)
    d = dd.distillation(recipe)
    state = jax.jit(d.init)(jax.random.key(0), toy)
    batch = d.fetch(toy, d.sample(state, toy))
    step = jax.jit(d.step)
    one, metrics = step(state, batch)
    shard = lambda x: jax.device_put(x, NamedSharding(mesh, axes))
    everywhere = jax.device_put(state, NamedSharding(mesh, P()))
    four, sharded = step(everywhere, jax.tree.map(shard, batch))
    np.testing.assert_allclose(metrics["loss"], sharded["loss"], rtol=1e-4)
    np.testing.assert_allclose(one.params["images"], four.params["images"], atol=1e-3)
print("equal")
"""


def test_four_devices_equal_one():
    env = {**os.environ, "XLA_FLAGS": " ".join([
        os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=4"]),
           "JAX_PLATFORMS": "cpu"}
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run([sys.executable, "-c", CODE], env=env, cwd=root, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr[-3000:]
