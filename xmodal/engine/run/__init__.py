"""What a run leaves behind: its folder, checkpoints, result, and TensorBoard events."""
