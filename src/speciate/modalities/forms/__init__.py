"""Forms in space: surfaces and clouds of points."""
