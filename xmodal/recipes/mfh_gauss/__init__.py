"""MFH on Gaussian pairs: figures 2 and 3 and table 2 of the paper."""
