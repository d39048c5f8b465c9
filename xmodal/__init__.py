"""Cross-modal knowledge distillation: train with several modalities, deploy with fewer."""

from xmodal.version import __version__

__all__ = ["__version__"]
