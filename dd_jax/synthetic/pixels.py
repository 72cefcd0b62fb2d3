"""The plainest parameterization: every pixel of every image is a number of its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.errors import unknown
from dd_jax.types import Parameterization, SyntheticSet

LABEL_HEADS = ("fixed", "learned", "soft")


def pixels(*, labels: str = "fixed", least: float = 1e-3) -> Parameterization:
    """Images stored as they are, with one of three label heads.

    Args:
      labels: "fixed" keeps the labels of the start; "learned" learns them without constraint
        (kernel ridge targets); "soft" learns logits whose softmax is the label (probabilities).
      least: probabilities of the start below it are taken for it, so that hard ones can be learned.

    Returns:
      A `Parameterization` whose params are {"images": [M, H, W, C], "labels": [M, K]} and, where
      the start has one, {"log_learning_rate"}: rates are learned in log form, so never negative;
      likewise {"log_temperature"}.

    Raises:
      ConfigError: unknown head.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> head = pixels(labels="learned")
      >>> start = SyntheticSet(jnp.zeros((2, 3, 3, 1)), jnp.eye(2))
      >>> params = head.init(jax.random.key(0), start)
      >>> sorted(params)
      ['images', 'labels']
    """
    if labels not in LABEL_HEADS:
        raise unknown("label head", labels, LABEL_HEADS)

    def init(key: jax.Array, start: SyntheticSet) -> dict:
        del key
        # Soft labels start as a firm but not saturated copy: softmax(log p) = p.
        stored = jnp.log(jnp.clip(start.labels, least)) if labels == "soft" else start.labels
        params = {"images": jnp.asarray(start.images), "labels": jnp.asarray(stored)}
        if start.learning_rate is not None:
            params["log_learning_rate"] = jnp.log(start.learning_rate)
        if start.log_temperature is not None:
            params["log_temperature"] = jnp.asarray(start.log_temperature, jnp.float32)
        return params

    def decode(params: dict, key: jax.Array) -> SyntheticSet:
        del key
        targets = params["labels"]
        if labels == "fixed":
            targets = jax.lax.stop_gradient(targets)
        elif labels == "soft":
            targets = jax.nn.softmax(targets)
        rate = params.get("log_learning_rate")
        rate = None if rate is None else jnp.exp(rate)
        return SyntheticSet(params["images"], targets, rate, params.get("log_temperature"))

    def groups(params: dict) -> dict:
        names = {"images": "images", "labels": "labels", "log_learning_rate": "learning_rate",
                 "log_temperature": "temperature"}
        if labels == "fixed":
            names["labels"] = "constant"
        return {k: names[k] for k in params}

    return Parameterization(init=init, decode=decode, groups=groups)
