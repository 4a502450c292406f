"""Meshes and point clouds: file formats, shape descriptors, rendering.

Formats are checked against what their headers declare before a library reads them.
"""
