"""What a network says of every real image, as it is stored: not augmented, in evaluation mode.

Block by block: images go to the device, or are there, and NumPy arrays come back, so that a set and
what is known of it may be larger than the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import CHUNK, in_chunks, on_cpu, own_dtypes
from dd_jax.data import Normaliser, gather, normalise
from dd_jax.select.memory import NUMBER, Bytes, Phase, Sizes
from dd_jax.types import Network, PyTree, RealData

_BLOCK_BYTES = 2**25  # of images in model space


def block_rows(data: RealData) -> int:
    """Images that are looked at together, 32 MiB of them in model space and at most 4,096.

    Example:
      >>> from dd_jax.data import from_arrays
      >>> block_rows(from_arrays(np.zeros((2, 1, 1), np.uint8), [0, 1]))
      2
    """
    each = 4 * int(np.prod(data.spec.shape))
    return min(len(data.labels), max(16, min(4096, _BLOCK_BYTES // each)))


def look_phase(
    network: Network, data: RealData, *, chunk: int | None = None, derivative: bool = False
) -> Phase:
    """What a look at all images by networks holds on the device, one block at a time.

    A CPU takes the images of a block by the chunk, and one network after another.

    Args:
      network: of each of the `Sizes.networks`.
      data: the real set.
      chunk: images of a block whose activations an accelerator holds at once; None: all of them.
      derivative: whether the activations of all layers are kept, or two of the widest one.
    """
    pixels = int(np.prod(data.spec.shape)) * (data.images.dtype.itemsize + NUMBER)
    variables, layers = _network_bytes(network, data)
    layer = 2 * (sum(layers) if derivative else max(layers))
    if on_cpu():
        chunk = CHUNK

    def arrays(sizes: Sizes) -> Bytes:
        together = 1 if on_cpu() else sizes.networks
        return {"networks": sizes.networks * variables,
                "activations": (chunk or 0) * together * layer}

    def row(sizes: Sizes) -> int:
        told = sizes.networks * NUMBER * (7 + sizes.classes + sizes.width)
        return pixels + told + (0 if chunk else sizes.networks * layer)

    return Phase(arrays, row, lambda sizes: block_rows(data))


def _network_bytes(network: Network, data: RealData) -> tuple[int, list[int]]:
    """Bytes of a network's variables, and of what each of its steps writes for an image."""
    variables = jax.eval_shape(network.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *data.spec.shape), jnp.float32)
    program = jax.make_jaxpr(network.apply)(variables, image).jaxpr
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables))
    return held, list(_written(program))


def _written(jaxpr) -> Iterator[int]:
    """Bytes of each array that a program writes, programs inside it included."""
    for equation in jaxpr.eqns:
        inner = [getattr(value, "jaxpr", value) for value in equation.params.values()]
        inner = [program for program in inner if hasattr(program, "eqns")]
        for program in inner:
            yield from _written(program)
        if not inner:
            yield from (v.aval.size * v.aval.dtype.itemsize for v in equation.outvars
                        if hasattr(v.aval, "size"))


@functools.partial(jax.jit, static_argnames="look")
def _looked(look, arrays, images, labels, normaliser):
    return look(arrays, normalise(normaliser, images), labels)


@own_dtypes()
def look_at(
    look: Callable[[PyTree, jax.Array, jax.Array], PyTree], arrays: PyTree, data: RealData,
    normaliser: Normaliser, *, axis: int = 0, block: int | None = None,
) -> PyTree:
    """What `look` gives for every image.

    Args:
      look: (arrays, images [b, H, W, C] in model space, labels [b]) -> pytree of arrays with an
        axis of b; equal functions share a program.
      arrays: such as the variables of a network.
      data: the real set, on the device or on the host.
      normaliser: from stored images to model space.
      axis: of the images in what it gives.
      block: images that are looked at together; None: see `block_rows`.

    Returns:
      The same pytree with NumPy arrays of all N images.

    Example:
      >>> from dd_jax.data import from_arrays, identity
      >>> data = from_arrays(np.uint8([[[0]], [[255]]]), [0, 1], device=False)
      >>> look_at(lambda a, x, y: a * x.mean(axis=(1, 2, 3)), 2.0, data,
      ...         identity((1, 1, 1))).tolist()
      [0.0, 2.0]
    """
    total, found = len(data.labels), []
    block = min(total, block_rows(data) if block is None else block)
    for start in range(0, total, block):
        rows = np.minimum(np.arange(start, start + block), total - 1)  # one program for all blocks
        seen = _looked(look, arrays, *gather(data, rows), normaliser)
        found.append(jax.tree.map(np.asarray, seen))
    return jax.tree.map(
        lambda *parts: np.concatenate(parts, axis=axis).take(np.arange(total), axis=axis), *found)


def network_features(
    network: Network, variables: PyTree, data: RealData, normaliser: Normaliser, *,
    block: int | None = None,
) -> np.ndarray:
    """[N, P] float32, the input of the last layer; `block` as for `look_at`."""
    def look(variables, images, labels):
        return in_chunks(lambda x: network.apply(variables, x).features, images)

    return look_at(look, variables, data, normaliser, block=block)


def network_logits(
    network: Network, variables: PyTree, data: RealData, normaliser: Normaliser, *,
    block: int | None = None,
) -> np.ndarray:
    """[N, K] float32; `block` as for `look_at`."""
    def look(variables, images, labels):
        return in_chunks(lambda x: network.apply(variables, x).logits, images)

    return look_at(look, variables, data, normaliser, block=block)


def pixel_features(data: RealData, normaliser: Normaliser) -> np.ndarray:
    """[N, H W C] float32, the pixels in model space."""
    return look_at(_flat, (), data, normaliser)


def _flat(arrays, images, labels):
    return images.reshape(len(images), -1)


def feature_width(network: Network, data: RealData) -> int:
    """P of a network's features."""
    variables = jax.eval_shape(network.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((1, *data.spec.shape), jnp.float32)
    return jax.eval_shape(network.apply, variables, images).features.shape[1]
