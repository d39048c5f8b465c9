"""Trained networks and batches → numbers. Never trains."""
