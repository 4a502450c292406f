"""Molecules of life: sequences, structures and small compounds."""
