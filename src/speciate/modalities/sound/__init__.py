"""Sound: recordings, and the sound of a film."""
