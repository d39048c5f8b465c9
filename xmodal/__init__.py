"""Cross-modal knowledge distillation: train with several modalities, deploy with fewer.

Each name below is imported at its first use, so `import xmodal` does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmodal.version import __version__

if TYPE_CHECKING:
    from xmodal.api.compare import compare
    from xmodal.api.distill import distill
    from xmodal.data import DATA, open_data
    from xmodal.data.arrays import from_arrays, from_dataset
    from xmodal.deploy import open_student
    from xmodal.engine.fit import fit
    from xmodal.engine.settings import FitSettings
    from xmodal.engine.stacked.fit_many import fit_many
    from xmodal.export import export_student
    from xmodal.losses import LOSSES
    from xmodal.method import Method
    from xmodal.methods import METHODS
    from xmodal.models.student_file import load_student
    from xmodal.recipes import RECIPES
    from xmodal.types import Batch, DataInfo, Step, Student

__all__ = [
    "DATA",
    "LOSSES",
    "METHODS",
    "RECIPES",
    "Batch",
    "DataInfo",
    "FitSettings",
    "Method",
    "Step",
    "Student",
    "__version__",
    "compare",
    "distill",
    "export_student",
    "fit",
    "fit_many",
    "from_arrays",
    "from_dataset",
    "load_student",
    "open_data",
    "open_student",
]

if not TYPE_CHECKING:
    # Hidden from type checkers: in a module that defines __getattr__ they accept any misspelt name.
    _MODULES = {
        "DATA": "xmodal.data",
        "LOSSES": "xmodal.losses",
        "METHODS": "xmodal.methods",
        "RECIPES": "xmodal.recipes",
        "Batch": "xmodal.types",
        "DataInfo": "xmodal.types",
        "FitSettings": "xmodal.engine.settings",
        "Method": "xmodal.method",
        "Step": "xmodal.types",
        "Student": "xmodal.types",
        "compare": "xmodal.api.compare",
        "distill": "xmodal.api.distill",
        "export_student": "xmodal.export",
        "fit": "xmodal.engine.fit",
        "fit_many": "xmodal.engine.stacked.fit_many",
        "from_arrays": "xmodal.data.arrays",
        "from_dataset": "xmodal.data.arrays",
        "load_student": "xmodal.models.student_file",
        "open_data": "xmodal.data",
        "open_student": "xmodal.deploy",
    }

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            from importlib import import_module

            # Stored in the module, so that later uses do not come through here again.
            globals()[name] = value = getattr(import_module(_MODULES[name]), name)
            return value
        # Python and its tools look up names such as __wrapped__ in every module; suggestions are for people.
        if name.startswith("_"):
            raise AttributeError(f"module 'xmodal' has no attribute '{name}'")
        from xmodal.errors import did_you_mean

        raise AttributeError(f"module 'xmodal' has no attribute '{name}'. {did_you_mean(name, __all__)}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES})
