"""A trained adapter as a classifier that stands alone: a graph, what it needs beside it, a script that runs it."""
