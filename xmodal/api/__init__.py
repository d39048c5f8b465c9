"""The calls of Python users: `distill` and `compare` on arrays in memory, and what they return."""
