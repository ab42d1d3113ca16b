"""Accuracy on base and new classes and their harmonic mean."""
