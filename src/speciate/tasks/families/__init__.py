"""One file per task family: its question and target, head, loss, prediction, and what is its own for classical
learners.

Each implements `TaskHead` (tasks/task.py) and is entered in tasks/task_heads.py.
"""
