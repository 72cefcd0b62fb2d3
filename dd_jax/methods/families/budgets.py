"""How long the presets for a CPU train the networks that test a set: one budget for all methods."""

from __future__ import annotations

from typing import Any

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


def evaluation_epochs(
    settings: Any, *, images_per_class: float, shown: float, batch_size: int
) -> int:
    """Passes over the set in its test: the settings' own, or those with as many steps as they say.

    Args:
      settings: of a method, with `evaluation_epochs` and perhaps `evaluation_steps`, see
        `frame.Tested`; None of both stands for `evaluation_steps` above.
      images_per_class: that the set stores, which a share of the data decides as well as `ipc`.
      shown: images that the set shows; a whole number that may be a float, of uneven classes.
      batch_size: of the test.

    Example:
      >>> from dd_jax.methods import preset
      >>> evaluation_epochs(preset("idc", "cpu", 10), images_per_class=10, shown=400,
      ...                   batch_size=64)
      143
    """
    epochs, steps = settings.evaluation_epochs, getattr(settings, "evaluation_steps", None)
    if epochs is not None and steps is None:
        return epochs
    steps = evaluation_steps(images_per_class) if steps is None else steps
    return -(-steps // int(-(-shown // batch_size)))
