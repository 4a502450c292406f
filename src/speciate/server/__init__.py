"""The daemon and the processes that talk to it: socket, shim, tool declarations, MCP (mcp/).

May use: every room but cli. shim, session, frames, dial, protocol and client use the standard library alone.
"""
