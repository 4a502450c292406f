"""The Model Context Protocol: our tools and resources offered by the MCP library, results rendered, jobs as tasks.

Every name that the library does not promise to keep is in library.py."""
