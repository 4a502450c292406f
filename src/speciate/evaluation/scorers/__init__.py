"""Scores beyond the built-in metrics: a user's function, a package's, programs against tests, reasoning-gym.

`scorer.find` reads what a caller writes as `scorer`; scoring.py is the worker's side.
"""
