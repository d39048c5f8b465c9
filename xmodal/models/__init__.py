"""Plain networks: parts are passed in, `build_*` functions hold the numbers."""
