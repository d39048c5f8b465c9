"""Metrics: torchmetrics, and only what it lacks."""
