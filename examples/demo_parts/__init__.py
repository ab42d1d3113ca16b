"""Parts of the demo: what it compares and draws, and what its small CLIP was pretrained on."""
