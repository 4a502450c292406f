"""Proteins (sequences and structures), homology, and small molecules."""
