"""Sound and video files: decoding, writing, resampling, spectrograms. Several data sets share it."""
