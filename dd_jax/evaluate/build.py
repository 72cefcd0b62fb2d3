"""The network of a protocol."""

from __future__ import annotations

import inspect

import jax

from dd_jax import nets
from dd_jax.evaluate.protocol import Protocol
from dd_jax.types import DataSpec, Network, Outputs, PyTree

_OPTIONS = ("depth", "width", "norm", "init_style", "first_padding")


def build_network(protocol: Protocol, spec: DataSpec) -> Network:
    """The protocol's architecture for this data, with centred and scaled outputs if it says so."""
    chosen, told = protocol.network, protocol.supervision
    takes = inspect.signature(nets.NETWORKS[chosen.name]).parameters
    options = {name: getattr(chosen, name) for name in _OPTIONS if name in takes}
    network = nets.by_name(chosen.name, spec, **options)
    if told.centre_outputs:
        network = centred(network)
    return network if told.output_scale == 1.0 else scaled(network, told.output_scale)


def centred(network: Network) -> Network:
    """The network whose logits are f(x) - f_0(x), with f_0 the same network at initialisation.

    Its variables carry the initial ones along as "initial", which get no gradient.

    Example:
      >>> import jax
      >>> from dd_jax.types import DataSpec
      >>> network = centred(nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4))
      >>> variables = network.init(jax.random.key(0))
      >>> network.apply(variables, jax.numpy.ones((1, 2, 2, 1))).logits.tolist()
      [[0.0, 0.0]]
    """

    def init(key: jax.Array) -> PyTree:
        variables = network.init(key)
        return {**variables, "initial": variables}

    def apply(variables: PyTree, images: jax.Array, train: bool = False) -> Outputs:
        now = {name: part for name, part in variables.items() if name != "initial"}
        outputs = network.apply(now, images, train)
        initial = jax.lax.stop_gradient(network.apply(variables["initial"], images, train).logits)
        return outputs._replace(logits=outputs.logits - initial)

    return Network(init=init, apply=apply, name=network.name)


def scaled(network: Network, scale: float) -> Network:
    """The network whose logits are divided by `scale`."""

    def apply(variables: PyTree, images: jax.Array, train: bool = False) -> Outputs:
        outputs = network.apply(variables, images, train)
        return outputs._replace(logits=outputs.logits / scale)

    return Network(init=network.init, apply=apply, name=network.name)
