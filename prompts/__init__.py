"""MCP prompts: one Markdown file each, with front matter. There are none yet."""
