"""From a source's name (path, `hf:`, `pkg:`, `gym:`, `log:`) to the files that are read, with their labels.

`prepare.py` is the way in. Foreign bytes are opened in a sandbox only. May use: readers/ and gathering/.
"""
