"""From any answer to all that it rests on, and from data or a model to all that came of it; the report of a model.

May use: governance, predictions, evaluation and below."""
