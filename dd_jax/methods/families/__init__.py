"""What the methods of one family have in common."""
