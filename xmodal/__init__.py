"""Cross-modal knowledge distillation: train with several modalities, deploy with fewer.

The names below are loaded when they are first used, so that `import xmodal` brings in no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xmodal.version import __version__

if TYPE_CHECKING:
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
    from xmodal.recipes.distill import distill
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

if not TYPE_CHECKING:  # a type checker would take any name for an attribute of a module with __getattr__
    _HOMES = {
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
        "distill": "xmodal.recipes.distill",
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
        if name in _HOMES:
            from importlib import import_module

            globals()[name] = found = getattr(import_module(_HOMES[name]), name)
            return found
        if name.startswith("_"):  # asked for by Python and its tools, not by people
            raise AttributeError(f"module 'xmodal' has no attribute '{name}'")
        from xmodal.errors import did_you_mean

        raise AttributeError(f"module 'xmodal' has no attribute '{name}'. {did_you_mean(name, __all__)}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
