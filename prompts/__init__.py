"""MCP prompts: one Markdown file each, with TOML between lines of `+++`; `server/mcp/prompts.py` reads them."""
