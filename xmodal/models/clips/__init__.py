"""Networks for clips: sound and picture of RAVDESS, sound and video of VGGSound."""
