"""NYU Depth V2 for semantic scene completion: the data set, SSCNet's files, voxels, a synthetic copy."""
