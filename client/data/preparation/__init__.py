"""Scanner-space data made ready for training: one grid of 1 mm, brains without skulls. Needs the extra `prepare`."""
