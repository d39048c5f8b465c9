"""RAVDESS: the data set, its recordings, file names and lists, a synthetic copy."""
