"""Runs on machines beyond this one: their folders on a shared disk say what happened, whatever a cluster says."""
