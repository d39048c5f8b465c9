"""Data sets, each a file that reads one real format. `DATA` lists them."""
