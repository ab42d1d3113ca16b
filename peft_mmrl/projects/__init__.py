"""A project, one folder with a user's pictures and adapters, and all that can be done to it, by page and commands."""
