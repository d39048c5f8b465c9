"""MFH and NTDH on RAVDESS: a face network taught by audio."""
