"""MFH on VGGSound: video taught by audio."""
