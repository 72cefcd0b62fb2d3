"""What a network in training is told: sources of targets, losses, and labels in few bytes."""

from dd_jax.labels.supervision import Supervision, Views, own_labels, stored_targets, teacher

__all__ = ["Supervision", "Views", "own_labels", "stored_targets", "teacher"]
