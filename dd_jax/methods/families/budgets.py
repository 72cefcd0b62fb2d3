"""How long the presets for a CPU train the networks that test a set: one budget for all methods."""

from __future__ import annotations

# Steps of the optimizer, from so many images per class on.
STEPS = {0: 1000, 50: 2000}


def evaluation_steps(images_per_class: float) -> int:
    """Steps of the optimizer for a network that tests a set of so many images per class.

    Figures of two methods can be compared only where their networks are trained equally long. It is
    what `evaluation_epochs=None` stands for, and a preset whose field counts steps can have the
    function itself as its value.

    Example:
      >>> evaluation_steps(0.3), evaluation_steps(10), evaluation_steps(50)
      (1000, 1000, 2000)
    """
    return STEPS[max(budget for budget in STEPS if budget <= images_per_class)]
