"""Distillation methods from one list of options, for tests that compare KD, MFH and NTDH."""

from dataclasses import fields

from xmodal.methods.options import DistillationOptions

SHARED = {field.name for field in fields(DistillationOptions)}


def distilled(kind, student, teacher, info, **options):
    """A method of this class; options that all of them share become its `DistillationOptions`."""
    shared = {name: value for name, value in options.items() if name in SHARED}
    others = {name: value for name, value in options.items() if name not in SHARED}
    return kind(student, teacher, info, DistillationOptions(**shared), **others)
