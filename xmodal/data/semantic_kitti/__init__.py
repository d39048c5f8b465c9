"""SemanticKITTI: the data set, its sequences, projection, augmentation, a synthetic copy."""
