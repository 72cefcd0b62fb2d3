"""What a network in training is told: losses, sources of targets, and labels in few bytes."""
