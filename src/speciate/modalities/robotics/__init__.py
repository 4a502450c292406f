"""Episodes of robots: LeRobot-style bundles and MCAP files."""
