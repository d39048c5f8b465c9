"""MNIST and MNIST-M: the data set, its idx files, the coloured backgrounds and the noise."""
