"""Before a run, in the daemon: which methods suit, checks of data and base models, estimates, candidates.
May use: train_spec and hyperparameters. The files `*_run.py` are the worker's side of `measure` and `shortlist`."""
