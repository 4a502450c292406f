"""Published policies of robots, in the form that LeRobot saves: their folders, their networks, and how they act.

Nothing here knows of datasets or tasks."""
