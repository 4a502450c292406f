"""Versions for workers: media decoded in a sandbox, examples at once or batch by batch. Never opens the catalog.

May use: the files above."""
