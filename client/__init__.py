"""One hospital: its data, its training, and the only door out."""
