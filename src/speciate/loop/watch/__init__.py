"""Watches: what makes a use case a continual-learning loop. A watch waits, jobs work."""
