"""Training the head, in numpy."""
