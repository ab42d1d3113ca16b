"""Whether new pictures are still of the kind that an adapter was trained on: a test, and its page."""
