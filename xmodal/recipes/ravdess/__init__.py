"""MFH and NTDH on RAVDESS: a face taught by a voice."""
