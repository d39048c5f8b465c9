"""The one loop, and what it needs: it knows the contract of `xmodal.method`, no paper and no probe."""
