"""The cascade of `specialize`: what may be tried, what comes next, what is told."""
