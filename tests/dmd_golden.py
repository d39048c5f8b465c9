"""The method with the weights of DMD's golden files, built by the functions that a training goes through."""

import torch
from dmd_fill import LETTERS, det, filled_state, lav, load_as_file, published_state

from xmodal.methods.dmd import DMD, build_network
from xmodal.methods.settings import DMDSettings
from xmodal.models.dmd.authors_weights import published_places
from xmodal.types import Batch, DataInfo, InputInfo

PARTS = {  # name in the files → our terms and the factor between them
    "recon": (("reconstruction",), 0.1),
    "cyc": (("cycle",), 0.1),
    "mar": (("margin",), 0.01),
    "homo_reg": (("homo_reg",), 0.05),
    "homo_logit": (("homo_logit",), 0.05),
    "homo_repr": (("homo_repr",), 0.05),
    "het_reg": (("hetero_reg",), 0.05),
    "het_logit": (("hetero_logit",), 0.05),
    "het_repr": (("hetero_repr",), 0.05),
    "gd_homo": (("homo_reg", "homo_logit"), 1.0),
    "gd_het": (("hetero_reg", "hetero_logit", "hetero_repr"), 1.0),
    "task_output_logit": (("task_fused",), 1.0),
    "task_logits_c": (("task_common",), 1.0),
    **{
        f"task_logits_{letter}_{graph}": ((f"task_{graph}_{name}",), 1.0)
        for name, letter in LETTERS.items()
        for graph in ("homo", "hetero")
    },
}
ORTHOGONALITY = {"ort_batch_axis": "legacy_batch", "ort_per_frame": "frame", "ort_flat": "flat"}


def info_of(case):
    """What is known of the data of a case."""
    widths, lengths = lav(case, "dims_LAV"), lav(case, "lens_LAV")
    inputs = {name: InputInfo((widths[name], lengths[name]), layout="sequence") for name in LETTERS}
    return DataInfo(inputs, "regression", 1, {"train": {}}, select=("mae", "min"))


def golden_method(case, bases=None, **terms):
    """The method of a case, filled from its seeds; no dropout."""
    kernels = lav(case, "kernels_LAV")
    settings = DMDSettings(
        width=case["d"],
        heads=case["heads"],
        layers=case["nlevels"],
        kernel=tuple(kernels[name] for name in LETTERS),
        attention_dropout=(0.0,),
        embed_dropout=0.0,
        output_dropout=0.0,
        as_published=True,  # the network then has a place for every weight of the files
    )
    info = info_of(case)
    method = DMD(build_network(info, tuple(LETTERS), settings), info, **terms)
    bases = bases or case
    shapes = {name: tensor.shape for name, tensor in published_state(method.network).items()}
    load_as_file(method.network, filled_state(shapes, bases["param_base_seed"]))
    for graph, unit in method.units.items():
        shapes = {name: parameter.shape for name, parameter in unit.named_parameters()}
        unit.load_state_dict(filled_state(shapes, bases[f"{graph}_base_seed"]), strict=False)
    return method


def gradients(method):
    """Published name → gradient, or None."""
    found = {}
    for name, place in published_places(method.network).items():
        gradient = place.parameter.grad
        found[name] = gradient[place.part] if gradient is not None and place.part else gradient
    for graph, unit in method.units.items():
        found |= {f"{graph}.{name}": parameter.grad for name, parameter in unit.named_parameters()}
    return found


def batch_of(inputs, labels):
    """A batch of the engine."""
    rows = torch.arange(len(labels))
    return Batch(inputs, dict.fromkeys(inputs, labels), {}, dict.fromkeys(inputs, rows))


def inputs_from(case, seeds, batch):
    """Modality → (batch, width, time) from a seed for each of text, audio and vision."""
    widths, lengths = lav(case, "dims_LAV"), lav(case, "lens_LAV")
    return {name: det((batch, lengths[name], widths[name]), seeds[name]).transpose(1, 2) for name in LETTERS}
