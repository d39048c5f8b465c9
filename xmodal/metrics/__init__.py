"""Metrics: those of torchmetrics, and a few that it does not contain."""
