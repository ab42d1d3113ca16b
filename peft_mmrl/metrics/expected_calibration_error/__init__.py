"""Expected calibration error."""
