"""Files that hold many examples, read as tables in a sandbox: read_table.py lists the formats.

A reader is a function `read_x(path, text) -> pa.Table`; a row that cannot be read stays, with the reason. May use:
columns.py, roles.py."""
