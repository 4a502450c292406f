"""What an answer of a language model is worth: reward kinds (reward_table.py lists them) and environments with tools.
Foreign code and rules about foreign text run in a sandbox (`*_sandbox.py`)."""
