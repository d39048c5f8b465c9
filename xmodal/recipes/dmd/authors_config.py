"""The settings file of DMD's authors (``config.json``) as values of our settings.

    {"datasetCommonParams": {"dataset_root_dir": …, "mosi": {"aligned": {…}, "unaligned": {…}}, "mosei": {…}},
     "dmd": {"commonParams": {…}, "datasetParams": {"mosi": {…}, "mosei": {…}}}}

Blocks are merged as in their code: the block of the data set, then commonParams, then datasetParams; later values
replace earlier ones, and flags replace all. A key that their code does not read is an error, which names the closest
one; a key without a counterpart here is named in a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodal.errors import InputError, did_you_mean
from xmodal.files import parse_json, read_text

MODEL, COMMON = "dmd", "datasetCommonParams"
BLOCKS = ("aligned", "unaligned")
SYNTHETIC = "synthetic"  # our third data set, which their file does not contain
SYNTHETIC_BLOCK = "mosi"  # the synthetic set has the layout of MOSI, and takes its numbers
DIRECT = {  # their key → our setting with the same value
    "early_stop": "patience",
    "use_finetune": "fine_tune",
    "attn_mask": "causal",
    # in spite of its name it counts batches: gradients of so many are summed for one step of the optimiser
    "update_epochs": "accumulate",
    "nlevels": "layers",
    "embed_dropout": "embed_dropout",
    "relu_dropout": "relu_dropout",
    "res_dropout": "residual_dropout",
    "output_dropout": "output_dropout",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    # of the plateau schedule of the rate; the patience of the training is early_stop
    "patience": "schedule_every",
}
TRIPLES = {  # our setting → their keys for text, vision, audio
    "kernel": ("conv1d_kernel_size_l", "conv1d_kernel_size_v", "conv1d_kernel_size_a"),
    "attention_dropout": ("attn_dropout", "attn_dropout_v", "attn_dropout_a"),
}
# their key → our setting, and its values for false and true
SWITCHES = {
    "use_bert": ("text", ("features", "tokens")),
    "need_data_aligned": ("alignment", ("unaligned", "aligned")),
}
FILES = {"feature_T": "text_from", "feature_V": "vision_from", "feature_A": "audio_from"}
# Loss is the mean absolute error of the fused output, so both names are the same metric.
METRICS = {"Loss": "mae", "MAE": "mae", "Acc_2": "Non0_acc_2", "F1_score": "Non0_F1_score", "Acc_7": "Mult_acc_7"}
READ = {
    *DIRECT,
    *(key for keys in TRIPLES.values() for key in keys),
    *SWITCHES,
    *FILES,
    "dst_feature_dim_nheads",
    "text_dropout",
    "grad_clip",
    "need_normalized",
    "featurePath",
    "KeyEval",
}
UNUSED = {
    "feature_dims": "widths are those of the data",
    "train_samples": "counted in the data",
    "num_classes": "the target is a value",
    "language": "the text encoder decides it",
    "need_model_aligned": "their code never uses it",
    "weight_decay": "their code never uses it; --weight-decay sets it",
    "transformers": "a text encoder comes from a folder, --text-encoder",
    "pretrained": "a text encoder comes from a folder, --text-encoder",
}


@dataclass
class Config:
    """The content of a file.

    Attributes:
        values: our setting → value; options of the data stand under ``options``.
        notes: sentences about keys that are not used.
    """

    values: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def read_config(path: Path, dataset: str) -> Config:
    """Read a file; an error lists all of its problems.

    Args:
        path: of the file.
        dataset: ``mosi``, ``mosei``, or ``synthetic``, which takes the numbers of MOSI.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give the config.json of DMD's authors, or leave --config out.")
    content = parse_json(read_text(path), str(path))
    block = SYNTHETIC_BLOCK if dataset == SYNTHETIC else dataset
    # the layout first: keys can be checked only in blocks that are there
    problems = list(_misplaced(content, block, str(path)))
    if problems:
        raise InputError(problems)
    merged, root = _merged(content, block)
    problems = [
        f"{path} has no key '{key}' that DMD knows. {did_you_mean(key, sorted([*READ, *UNUSED]))}"
        for key in merged
        if key not in READ and key not in UNUSED
    ]
    values: dict[str, Any] = {}
    _switches(merged, values, problems, str(path))
    _network(merged, values, problems, str(path))
    _training(merged, values, problems, str(path))
    _data(merged, values)
    if problems:
        raise InputError(problems)
    if dataset != SYNTHETIC and "featurePath" in merged and "root" not in values["options"]["mosi"]:
        # only where the file exists: theirs names the folders of their machine
        features = path.parent / root / str(merged["featurePath"])
        values["options"]["mosi"] |= {"root": str(features)} if features.is_file() else {}
    unused = [f"{key} ({why})" for key, why in UNUSED.items() if key in merged]
    return Config(values, [f"{path.name}: not used are {', '.join(unused)}."] if unused else [])


def _misplaced(content: Any, dataset: str, where: str) -> Iterator[str]:
    """Problems with blocks that are missing, unknown, or no blocks."""
    if not isinstance(content, Mapping) or MODEL not in content:
        yield f"{where} has no block '{MODEL}': expected the config.json of DMD's authors, with {COMMON} and {MODEL}."
        return
    for key, block in content.items():
        # their file may hold blocks of further models, which look like that of DMD
        other_model = isinstance(block, Mapping) and "commonParams" in block
        if key not in (MODEL, COMMON) and not other_model:
            yield f"{where} has no key '{key}' that DMD knows. {did_you_mean(key, [MODEL, COMMON])}"
    model, parts = content[MODEL], ("commonParams", "datasetParams")
    if not isinstance(model, Mapping):
        yield f"{where}: '{MODEL}' is {model!r}, expected a block with {' and '.join(parts)}."
        return
    for key in model:
        if key not in parts:
            yield f"{where}: '{MODEL}' has no key '{key}'. {did_you_mean(key, parts)}"
    for part in parts:
        if not isinstance(model.get(part, {}), Mapping):
            yield f"{where}: '{part}' is {model[part]!r}, expected a block."
    numbers = model.get("datasetParams")
    if isinstance(numbers, Mapping) and dataset not in numbers:
        listed = ", ".join(map(str, numbers)) or "none"
        yield f"{where} has no numbers for {dataset} under datasetParams; it has {listed}."


def _merged(content: Mapping[str, Any], dataset: str) -> tuple[dict[str, Any], str]:
    """All keys of a data set, where later blocks replace values of earlier ones, and the folder of the data."""
    model, common = content[MODEL], content.get(COMMON, {})
    params = {**model.get("commonParams", {}), **model.get("datasetParams", {}).get(dataset, {})}
    block = common.get(dataset, {}) if isinstance(common, Mapping) else {}
    if isinstance(block, Mapping) and (set(BLOCKS) & set(block)):
        # their order: the aligned block where it is wanted and there is one
        aligned = params.get("need_data_aligned", False) and "aligned" in block
        block = block.get("aligned" if aligned else "unaligned", {})
    return {**block, **params}, str(common.get("dataset_root_dir", "."))


def _switches(merged: Mapping[str, Any], values: dict[str, Any], problems: list[str], where: str) -> None:
    """Choices between two values, and the metric that selects the epoch."""
    for key, (setting, choices) in SWITCHES.items():
        if key in merged:
            if not isinstance(merged[key], bool):
                problems.append(f"{where}: '{key}' is {merged[key]!r}, expected true or false.")
                continue
            values[setting] = choices[merged[key]]
    if "KeyEval" in merged:
        values["select"] = METRICS.get(str(merged["KeyEval"]), str(merged["KeyEval"]))


def _network(merged: Mapping[str, Any], values: dict[str, Any], problems: list[str], where: str) -> None:
    """Widths, kernels and dropout, and the keys whose value is taken over."""
    values.update({setting: merged[key] for key, setting in DIRECT.items() if key in merged})
    pair = merged.get("dst_feature_dim_nheads")
    if pair is not None:
        if not isinstance(pair, list) or len(pair) != 2:
            problems.append(f"{where}: 'dst_feature_dim_nheads' is {pair!r}, expected [width, heads].")
        else:
            values["width"], values["heads"] = pair
    for setting, keys in TRIPLES.items():
        absent = [key for key in keys if key not in merged]
        if len(absent) < len(keys) and absent:
            problems.append(f"{where} has {setting} for some modalities, and not {', '.join(absent)}. Add these keys.")
        elif not absent:
            values[setting] = tuple(merged[key] for key in keys)
    # their code drops entries of the text alone
    if "text_dropout" in merged:
        values["input_dropout"] = (merged["text_dropout"], 0.0, 0.0)


def _training(merged: Mapping[str, Any], values: dict[str, Any], problems: list[str], where: str) -> None:
    """The bound of the gradients."""
    if "grad_clip" in merged:
        bound = merged["grad_clip"]
        # true is an int in Python, and no bound
        if isinstance(bound, bool) or not isinstance(bound, int | float) or (bound <= 0 and bound != -1):
            problems.append(f"{where}: 'grad_clip' is {bound!r}, expected a bound above 0, or -1 for none.")
        else:
            values["clip"] = None if bound == -1 else bound


def _data(merged: Mapping[str, Any], values: dict[str, Any]) -> None:
    """Options of the data."""
    options = {option: merged[key] for key, option in FILES.items() if merged.get(key)}
    if merged.get("need_normalized"):
        options["time_means"] = True
    values["options"] = {"mosi": options}
