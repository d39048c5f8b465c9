"""Audio and video files: decoding, writing, resampling, spectrograms. Shared by several data sets."""
