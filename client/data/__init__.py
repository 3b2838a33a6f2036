"""Reading cases, and making synthetic ones."""
