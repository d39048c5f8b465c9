"""Synthetic Gaussian pairs with a known share of common information: the data set and how it is drawn."""
