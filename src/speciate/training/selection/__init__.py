"""Which of several learners a training keeps, and a mean of them where that is better. May use: training_context.py and
held_out.py above. Knows no recipe."""
