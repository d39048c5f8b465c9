"""MNIST and MNIST-M: the data set, its IDX files, the coloured backgrounds and the noise."""
