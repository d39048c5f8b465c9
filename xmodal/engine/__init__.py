"""The training loop and its parts. It depends on the interface `xmodal.method`, not on any method or diagnostic."""
