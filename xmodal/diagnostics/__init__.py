"""Measurements of trained networks on batches. Nothing here trains, plots or writes files."""
