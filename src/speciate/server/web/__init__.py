"""Pages for people: look, compare, decide and label in a browser. Loaded with the first `speciate open`."""
