"""MOSI and MOSEI: the data set, its pickles read without unpickling, and a synthetic stand-in."""
