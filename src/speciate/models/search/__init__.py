"""Search over some 6,000 published models and the registry: sources, the index, query, ranking."""
