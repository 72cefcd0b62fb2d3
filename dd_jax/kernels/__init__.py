"""Kernels: analytic NNGP and NTK, blockwise evaluation, and adapters.

`named("convnet3")` gives a kernel of the field, `program([...])` one of another architecture,
`as_kernel(fn)` one of any function; `blockwise` bounds the memory of each. The maths and the words
of this room are explained in `docs/kernels.md`.
"""

from dd_jax.kernels import architectures, layers, neural_tangents
from dd_jax.kernels.block_plan import BlockPlan, plan_blocks
from dd_jax.kernels.blockwise import blockwise
from dd_jax.kernels.functions import added, as_kernel, centred, scaled
from dd_jax.kernels.named import NAMES, named
from dd_jax.kernels.neural_tangents import from_neural_tangents
from dd_jax.kernels.program import nngp_and_ntk, program

__all__ = ["NAMES", "BlockPlan", "added", "architectures", "as_kernel", "blockwise", "centred",
           "from_neural_tangents", "layers", "named", "neural_tangents", "nngp_and_ntk",
           "plan_blocks", "program", "scaled"]
