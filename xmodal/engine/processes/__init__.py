"""Devices and processes: launching, the parent that watches its ranks, signals, BatchNorm over processes."""
