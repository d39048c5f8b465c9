"""The machinery of experiments: opening a study, the bench, comparisons, references. Recipes are built from it."""
