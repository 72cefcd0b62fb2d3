"""Synthetic sets: how they start, how they are stored, what their labels mean."""

from dd_jax.synthetic.labels import LABEL_KINDS, class_major_labels, targets
from dd_jax.synthetic.pixels import pixels
from dd_jax.synthetic.preconditioned import preconditioned
from dd_jax.synthetic.start import STARTS, check_start, class_start, start_images

__all__ = ["LABEL_KINDS", "STARTS", "check_start", "class_major_labels", "class_start", "pixels",
           "preconditioned", "start_images", "targets"]
