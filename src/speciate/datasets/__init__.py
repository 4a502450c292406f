"""Datasets: immutable versions, from a source to training and back out as files.

versions.py says what a version is, splits.py assigns splits without leaks, similarity/near_duplicates.py finds what
is nearly the same. Kinds: `ingest`, `curate` (operations/), `label`, `tag`, `embed`, `export`. May use: features,
models and below.
"""
