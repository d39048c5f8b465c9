"""Your own data: a folder of arrays, its layout, what can be wrong with it, and repairs."""
