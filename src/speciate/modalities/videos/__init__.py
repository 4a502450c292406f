"""Films: what their packets say, and frames that are sought rather than decoded from the start."""
