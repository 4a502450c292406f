"""Examples of several media."""
