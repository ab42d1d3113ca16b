"""Why an adapter answers as it does: where it looks, which of its two features speaks, which pictures are nearest."""
