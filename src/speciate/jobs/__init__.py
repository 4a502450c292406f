"""The durable job engine: pure state machine, store, reconciler, supervisor, worker processes.

May use: workspace, sandbox and below. Start reading at engine.py; every kind of job is in kinds.py.
"""
