"""MOSI and MOSEI: the data set, a reader of pickles that executes nothing, synthetic data in the same format."""
