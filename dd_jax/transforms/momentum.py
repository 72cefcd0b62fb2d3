"""SGD as most papers mean it."""

from __future__ import annotations

import optax


def decayed_momentum(
    learning_rate: float = 0.1, *, momentum: float = 0.9, weight_decay: float = 1e-3
) -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay: the decay is part of the gradient."""
    return optax.chain(optax.add_decayed_weights(weight_decay),
                       optax.sgd(learning_rate, momentum=momentum))
