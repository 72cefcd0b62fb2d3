"""Dataset quantization: a class is cut into bins from the usual to the odd, and each gives a share.

  bin by bin, argmax_x lam sum_{j in pool} s(j, x) - 2 sum_{j in bin} s(j, x),
  s(a, b) = (1 + cos(G_a, G_b)) / 2

where the pool is what earlier bins left. Of each bin images are drawn, all alike likely.

Source: Zhou et al., Dataset Quantization, ICCV 2023.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.select.gradients import LastLayer, along, inner, masked, take, unit, weighted_sum
from dd_jax.select.greedy_choices import greedy
from dd_jax.select.rules import unweighted
from dd_jax.select.selector import Chosen


def quantized(
    seen: LastLayer, valid: jax.Array, count: int, key: jax.Array, *, bins: int = 10,
    weight: float = 1.0,
) -> Chosen:
    """Images drawn from bins of a graph cut, the bins by turns.

    The first bins have an image more than others where their number does not divide n, and give one
    more where it does not divide the count, so that a larger choice begins with a smaller one.

    Args:
      seen: of [n] images, see `gradients.LastLayer`.
      valid, count: as for `Selector.choose`.
      key: draws from the bins.
      bins: how many.
      weight: lam, of the likeness to the pool.

    Returns:
      `Chosen`, weights 1; in order the first of each bin, then the second of each, and so on.

    Example:
      >>> error = jnp.array([[1.0, -1.0], [-1.0, 1.0], [2.0, -2.0], [-2.0, 2.0]])
      >>> seen, key = LastLayer(error, jnp.ones((4, 1))), jax.random.key(0)
      >>> quantized(seen, jnp.ones(4, bool), 2, key, bins=2).rows.tolist()[0] in (0, 1)
      True
    """
    drawn = np.asarray(jax.random.uniform(key, (len(valid),), jnp.float32))
    parts = bins_of(seen, valid, bins=bins, weight=weight, first=count)
    parts = [part[np.argsort(drawn[part], kind="stable")] for part in parts]
    turns = [part[turn] for turn in range(len(parts[0])) for part in parts if turn < len(part)]
    return unweighted(jnp.asarray(np.int32(turns)), count)


def bins_of(
    seen: LastLayer, valid: jax.Array, *, bins: int, weight: float = 1.0, first: int | None = None
) -> list[np.ndarray]:
    """Places of each bin in the order of the graph cut, the most usual first.

    Args:
      seen, valid, bins, weight: as for `quantized`.
      first: make only so many bins; None: all.
    """
    seen, left = unit(masked(seen, valid)), np.array(valid)
    total, found = int(left.sum()), []
    for number in range(bins if first is None else min(first, bins)):
        size = total // bins + (number < total % bins)
        places = _bin(seen, jnp.asarray(left), size, jnp.float32(weight))
        found.append(np.asarray(places[:size]))
        left[found[-1]] = False
    return found


@jax.jit
def _bin(seen, left, size, weight):
    counted = left.astype(jnp.float32)
    pool = (jnp.sum(counted) + along(seen, weighted_sum(seen, counted))) / 2

    def gains(inside, i):
        return weight * pool - 2 * inside

    def update(inside, place):
        return inside + (1 + inner(take(seen, place[None]), seen)[0]) / 2

    return greedy(gains, update, jnp.zeros(left.shape), left, size)
