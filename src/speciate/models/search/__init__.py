"""Search over some 7,000 published models and the registry: sources, the index, query, ranking."""
