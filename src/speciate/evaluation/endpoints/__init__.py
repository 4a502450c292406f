"""Public models asked over HTTP: prompts, one call, many calls within limits, and what they cost."""
