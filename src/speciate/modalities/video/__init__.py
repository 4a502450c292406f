"""Videos: containers and packets, checked against what they declare; frames by time; motion."""
