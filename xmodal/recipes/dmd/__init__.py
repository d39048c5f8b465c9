"""DMD: three modalities that teach one another."""
