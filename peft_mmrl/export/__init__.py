"""A trained adapter as a classifier that stands alone: one graph, what it needs beside it, and a script that runs it."""
