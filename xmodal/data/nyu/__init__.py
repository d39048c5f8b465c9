"""NYU Depth V2 for semantic scene completion: the data set, the files of SSCNet, voxels, and synthetic rooms."""
