"""How data leaves the workspace: purge, deletion of versions, garbage collection.

`purge_*.py` are the places that a purge rewrites. May use: governance, evaluation, predictions and below."""
