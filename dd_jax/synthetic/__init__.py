"""Synthetic sets: how they start, how they are stored, what their labels mean."""

from dd_jax.synthetic.addressed import address_rows, addressed
from dd_jax.synthetic.class_order import class_order, mean_image_distances
from dd_jax.synthetic.joined import joined, stage_rows, stage_sets
from dd_jax.synthetic.labels import LABEL_KINDS, Labels, class_major_labels, targets
from dd_jax.synthetic.mirrors import with_mirrors
from dd_jax.synthetic.multi_formation import multi_formation, paste
from dd_jax.synthetic.pixels import pixels
from dd_jax.synthetic.poster import poster, poster_image
from dd_jax.synthetic.poster_layout import patch_counts, poster_shape
from dd_jax.synthetic.preconditioned import preconditioned
from dd_jax.synthetic.start import (
    STARTS,
    check_start,
    class_start,
    pasted_start,
    start_images,
)
from dd_jax.synthetic.stored_bytes import stored_bytes

__all__ = ["LABEL_KINDS", "Labels", "STARTS", "address_rows", "addressed", "check_start",
           "class_major_labels", "class_order", "class_start", "joined", "mean_image_distances",
           "multi_formation", "paste", "pasted_start", "patch_counts", "pixels", "poster",
           "poster_image", "poster_shape", "preconditioned", "stage_rows", "stage_sets",
           "start_images", "stored_bytes", "targets", "with_mirrors"]
