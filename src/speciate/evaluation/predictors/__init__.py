"""How each kind of model under evaluation is asked. `by_source.predict` chooses; answering.py says what goes in and
out.

A new source of answers: a function from `PredictorRequest` to `ModelAnswers` and a line in by_source.py.
"""
