"""Chat models behind HTTP: prompts, one call, many calls within limits, what they cost, and whether they still are the
same.
"""
