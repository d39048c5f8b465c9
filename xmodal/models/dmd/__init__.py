"""The networks of DMD: sequence transformers, the decoupled model, its graph unit, and the authors' weights."""
