"""What the command line and the pages ask of a running daemon beside tools: dispatch.py has the table of actions.

May use: every room that the server may.
"""
