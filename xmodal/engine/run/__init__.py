"""Files of a run: its folder, checkpoints, result, log and TensorBoard events."""
