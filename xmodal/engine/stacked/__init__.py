"""`fit_many`: many small models trained as one stacked model."""
