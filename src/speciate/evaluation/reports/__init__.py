"""What an evaluation found: the report, its description, and services that read its stored rows (error analysis,
slices).

The HTML page is in pages/.
"""
