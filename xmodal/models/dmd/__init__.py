"""DMD's networks: sequence transformers, the decoupled model, its graph unit, the authors' weights."""
