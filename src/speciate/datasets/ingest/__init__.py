"""Kind `ingest`: every file or row of a source is read, validated in a sandbox, and becomes a row of a version.

May use: sources/, readers/ and the files above. `append.py` holds the rules for rows that are appended to a dataset.
"""
