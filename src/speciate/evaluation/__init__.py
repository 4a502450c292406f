"""From models and a suite to a report with a verdict. evaluate.py plans and commits, run_evaluation.py runs.

A new metric: metrics/. A new kind of model under evaluation: predictors/. A new gate: gates.py. A user's or a
package's own score: scorers/. May use: tasks and below.
"""
