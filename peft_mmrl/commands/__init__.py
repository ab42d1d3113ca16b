"""The commands of `peft-mmrl`, a file each, and what they share."""
