"""What a trained adapter says to pictures, with labels and without."""
