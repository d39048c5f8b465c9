"""MFH on VGGSound: video taught by sound."""
