"""A network with something beside it that trains along and is thrown away before the test.

A projection of features, a second head or a discriminator has parameters that only a loss needs.
`extended` puts them beside those of the network under "params", so that one optimizer and
`train.fit` train both, and puts what they make of the network's outputs into `extra`, where a loss
of the whole outputs finds it. `without_extra` gives back what is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from dd_jax.errors import ConfigError, require_whole
from dd_jax.types import Network, Outputs, PyTree

_NETWORK, _EXTRA = range(2)


class Extra(NamedTuple):
    """What trains beside a network.

    Attributes:
      init: (key) -> its parameters.
      apply: (parameters, outputs: Outputs of the network) -> what a loss gets as `outputs.extra`.
      name: for tables, and for messages of losses that need another one.
    """

    init: Callable[[jax.Array], PyTree]
    apply: Callable[[PyTree, Outputs], PyTree]
    name: str = "extra"


class ExtendedOutputs(NamedTuple):
    """`Outputs` of the network inside, and `extra`, what is made of them."""

    logits: jax.Array
    features: jax.Array
    taps: tuple[jax.Array, ...] = ()
    batch_stats: PyTree = {}
    extra: PyTree = ()


def extended(network: Network, extra: Extra) -> Network:
    """The network with `extra` beside it.

    Args:
      network: the student.
      extra: what trains along, see `nets.extras`.

    Returns:
      A `Network` of variables {"params": {"network": ..., "extra": ...}, ...}, all else as the
      student has it, whose outputs are `ExtendedOutputs`.

    Example:
      >>> import jax.numpy as jnp
      >>> from dd_jax import nets
      >>> from dd_jax.nets.extras import second_head
      >>> from dd_jax.types import DataSpec
      >>> student = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> network = extended(student, second_head(4, 2))
      >>> variables = network.init(jax.random.key(0))
      >>> network.apply(variables, jnp.ones((3, 2, 2, 1))).extra.shape
      (3, 2)
    """

    def init(key: jax.Array) -> PyTree:
        return with_extra(network.init(jax.random.fold_in(key, _NETWORK)), extra, key)

    def apply(variables: PyTree, images: jax.Array, train: bool = False) -> ExtendedOutputs:
        outputs = network.apply(without_extra(variables), images, train)
        made = extra.apply(variables["params"]["extra"], outputs)
        return ExtendedOutputs(*outputs[:4], extra=made)

    return Network(init=init, apply=apply, name=f"{network.name} with {extra.name}")


def with_extra(variables: PyTree, extra: Extra, key: jax.Array) -> PyTree:
    """Variables of the extended network, that of a student that is there already inside.

    Example:
      >>> from dd_jax.nets.extras import second_head
      >>> sorted(with_extra({"params": {}}, second_head(4, 2), jax.random.key(0))["params"])
      ['extra', 'network']
    """
    made = extra.init(jax.random.fold_in(key, _EXTRA))
    return {**variables, "params": {"network": variables["params"], "extra": made}}


def without_extra(variables: PyTree) -> PyTree:
    """The student's own variables, for the test.

    Raises:
      ConfigError: variables of a network that is not extended.

    Example:
      >>> without_extra({"params": {"network": {"w": 1}, "extra": {}}, "batch_stats": {}})
      {'params': {'w': 1}, 'batch_stats': {}}
    """
    params = variables["params"]
    if set(params) != {"network", "extra"}:
        raise ConfigError(f"params have the entries {sorted(params)}, expected 'network' and "
                          "'extra'", fix="pass variables of a network that `extended` made")
    return {**variables, "params": params["network"]}


def folded(network: Network, classes: int) -> Network:
    """A network of S outputs for each class as one of a single output for each.

    log sum_k exp z_{c,k}: its softmax is the sum of the probabilities of a class's S outputs.

    Args:
      network: with classes * S outputs, those of one class together.
      classes: K.

    Returns:
      A `Network` of the same variables with logits [B, K].

    Raises:
      ConfigError: where it is used, outputs that K does not divide.

    Example:
      >>> import jax.numpy as jnp
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> six = nets.mlp(DataSpec("toy", (2, 2, 1), 6, tuple("abcdef")), width=4)
      >>> three = folded(six, 3)
      >>> three.apply(three.init(jax.random.key(0)), jnp.ones((5, 2, 2, 1))).logits.shape
      (5, 3)
    """
    require_whole("classes", classes, example=10)

    def apply(variables: PyTree, images: jax.Array, train: bool = False) -> Outputs:
        outputs = network.apply(variables, images, train)
        return outputs._replace(logits=fold(outputs.logits, classes))

    return Network(init=network.init, apply=apply, name=network.name)


def fold(logits: jax.Array, classes: int) -> jax.Array:
    """[B, K * S] logits of pseudo-classes -> [B, K], log sum_k exp z_{c,k}.

    Raises:
      ConfigError: outputs that K does not divide.

    Example:
      >>> import jax.numpy as jnp
      >>> fold(jnp.zeros((1, 4)), 2).round(4).tolist()
      [[0.69..., 0.69...]]
    """
    if logits.shape[-1] % classes:
        raise ConfigError(f"{logits.shape[-1]} outputs for {classes} classes, expected a multiple",
                          fix="build the network with classes * per_class outputs")
    return jax.nn.logsumexp(logits.reshape(*logits.shape[:-1], classes, -1), axis=-1)
