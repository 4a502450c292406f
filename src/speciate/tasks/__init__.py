"""Task families (families/) and the models that answer: data in, loss, head, prediction out.

A new task family: a file in families/ and a line in task_heads.py. May use: datasets and below.
"""
