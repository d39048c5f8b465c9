"""RAVDESS: the data set, preparing and checking its files, and synthetic recordings in the same format."""
