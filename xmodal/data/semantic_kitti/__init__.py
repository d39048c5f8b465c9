"""SemanticKITTI: the data set, its files, projection of points, augmentation, post-processing, synthetic drives."""
