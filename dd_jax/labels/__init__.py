"""What a student is told, and the losses against it."""
