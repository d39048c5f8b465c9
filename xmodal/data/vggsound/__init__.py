"""VGGSound: the data set, its clips and lists, a synthetic copy."""
