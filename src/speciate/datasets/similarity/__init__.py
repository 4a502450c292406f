"""What is alike: near_duplicates.py searches by sketches and clusters, known_pairs.py remembers what it found, embed.py
computes vectors, nearest_neighbours.py searches them.

The sketches themselves and their thresholds are the modalities' (`Sketching` in modalities/contract.py)."""
