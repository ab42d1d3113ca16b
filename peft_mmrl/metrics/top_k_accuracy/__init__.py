"""Top-k accuracy."""
