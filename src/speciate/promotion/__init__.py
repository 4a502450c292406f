"""Which version serves a use case: aliases, promotion, bake, rollback.

May use: governance, predictions, evaluation and below. What happens after the move: serving/deployments.py."""
