"""The settings file of DMD's authors (``config.json``) as values of our recipe.

    {"datasetCommonParams": {"dataset_root_dir": …, "mosi": {"aligned": {…}, "unaligned": {…}}, "mosei": {…}},
     "dmd": {"commonParams": {…}, "datasetParams": {"mosi": {…}, "mosei": {…}}}}

Merged as theirs: the block of the data set, then commonParams, then datasetParams; flags go on top of all. A key that
their code does not know is an error that names the nearest one; a key that says nothing to ours is a warning.
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
MADE_BLOCK = "mosi"  # whose numbers a made set takes
DIRECT = {  # their key → our setting, the value as it is
    "early_stop": "patience",
    "use_finetune": "fine_tune",
    "attn_mask": "causal",
    "update_epochs": "accumulate",
    "nlevels": "layers",
    "embed_dropout": "embed_dropout",
    "relu_dropout": "relu_dropout",
    "res_dropout": "residual_dropout",
    "output_dropout": "output_dropout",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "patience": "schedule_every",
}
TRIPLES = {  # our setting → their keys for text, vision, audio
    "kernel": ("conv1d_kernel_size_l", "conv1d_kernel_size_v", "conv1d_kernel_size_a"),
    "attention_dropout": ("attn_dropout", "attn_dropout_v", "attn_dropout_a"),
}
SWITCHES = {"use_bert": ("features", "tokens"), "need_data_aligned": ("unaligned", "aligned")}  # false, true
FILES = {"feature_T": "text_from", "feature_V": "vision_from", "feature_A": "audio_from"}
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
    "language": "the text encoder knows it",
    "need_model_aligned": "their code never uses it",
    "weight_decay": "their code never uses it; --weight-decay does",
    "transformers": "a text encoder comes from a folder, --text-encoder",
    "pretrained": "a text encoder comes from a folder, --text-encoder",
}


@dataclass
class Config:
    """What a file says.

    Attributes:
        values: our setting → value; those of the data under ``options``.
        notes: what was read and left aside, in sentences.
    """

    values: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def read_config(path: Path, dataset: str) -> Config:
    """Read a file; everything that is wrong with it is said at once.

    Args:
        path: of the file.
        dataset: ``mosi``, ``mosei``, or ``made``, which takes the numbers of MOSI.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give the config.json of DMD's authors, or leave --config out.")
    content = parse_json(read_text(path), str(path))
    wanted = MADE_BLOCK if dataset == "made" else dataset
    problems = list(_misplaced(content, wanted, str(path)))
    if problems:
        raise InputError(problems)
    merged, root = _merged(content, wanted)
    problems = [
        f"{path} has no key '{key}' that DMD knows. {did_you_mean(key, sorted([*READ, *UNUSED]))}"
        for key in merged
        if key not in READ and key not in UNUSED
    ]
    values: dict[str, Any] = {}
    for convert in (_switches, _network, _training, _data):
        convert(merged, values, problems, str(path))
    if problems:
        raise InputError(problems)
    if dataset != "made" and "featurePath" in merged and "root" not in values["options"]["mosi"]:
        found = path.parent / root / str(merged["featurePath"])
        values["options"]["mosi"] |= {"root": str(found)} if found.is_file() else {}
    unused = [f"{key} ({why})" for key, why in UNUSED.items() if key in merged]
    return Config(values, [f"{path.name}: not used are {', '.join(unused)}."] if unused else [])


def _misplaced(content: Any, dataset: str, where: str) -> Iterator[str]:
    """Blocks that are missing or are no blocks."""
    if not isinstance(content, Mapping) or MODEL not in content:
        yield f"{where} has no block '{MODEL}': expected the config.json of DMD's authors, with {COMMON} and {MODEL}."
        return
    for key, block in content.items():
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
    own = model.get("datasetParams")
    if isinstance(own, Mapping) and dataset not in own:
        yield f"{where} has no numbers for {dataset} under datasetParams; it has {', '.join(map(str, own)) or 'none'}."


def _merged(content: Mapping[str, Any], dataset: str) -> tuple[dict[str, Any], str]:
    """All keys of a data set, later blocks on top, and the folder of the data."""
    model, common = content[MODEL], content.get(COMMON, {})
    upper = {**model.get("commonParams", {}), **model.get("datasetParams", {}).get(dataset, {})}
    block = common.get(dataset, {}) if isinstance(common, Mapping) else {}
    if isinstance(block, Mapping) and (set(BLOCKS) & set(block)):
        aligned = upper.get("need_data_aligned", False) and "aligned" in block
        block = block.get("aligned" if aligned else "unaligned", {})
    return {**block, **upper}, str(common.get("dataset_root_dir", "."))


def _switches(merged: Mapping[str, Any], values: dict[str, Any], problems: list[str], where: str) -> None:
    for key, ours in (("use_bert", "text"), ("need_data_aligned", "alignment")):
        if key in merged:
            if not isinstance(merged[key], bool):
                problems.append(f"{where}: '{key}' is {merged[key]!r}, expected true or false.")
                continue
            values[ours] = SWITCHES[key][merged[key]]
    if "KeyEval" in merged:
        values["select"] = METRICS.get(str(merged["KeyEval"]), str(merged["KeyEval"]))


def _network(merged: Mapping[str, Any], values: dict[str, Any], problems: list[str], where: str) -> None:
    values.update({ours: merged[key] for key, ours in DIRECT.items() if key in merged})
    pair = merged.get("dst_feature_dim_nheads")
    if pair is not None:
        if not isinstance(pair, list) or len(pair) != 2:
            problems.append(f"{where}: 'dst_feature_dim_nheads' is {pair!r}, expected [width, heads].")
        else:
            values["width"], values["heads"] = pair
    for ours, keys in TRIPLES.items():
        absent = [key for key in keys if key not in merged]
        if len(absent) < len(keys) and absent:
            problems.append(f"{where} has {ours} of some modalities and lacks {', '.join(absent)}.")
        elif not absent:
            values[ours] = tuple(merged[key] for key in keys)
    if "text_dropout" in merged:
        values["input_dropout"] = (merged["text_dropout"], 0.0, 0.0)


def _training(merged: Mapping[str, Any], values: dict[str, Any], problems: list[str], where: str) -> None:
    if "grad_clip" in merged:
        bound = merged["grad_clip"]
        if isinstance(bound, bool) or not isinstance(bound, int | float) or (bound <= 0 and bound != -1):
            problems.append(f"{where}: 'grad_clip' is {bound!r}, expected a bound above 0, or -1 for none.")
        else:
            values["clip"] = None if bound == -1 else bound


def _data(merged: Mapping[str, Any], values: dict[str, Any], problems: list[str], where: str) -> None:
    own = {ours: merged[key] for key, ours in FILES.items() if merged.get(key)}
    if merged.get("need_normalized"):
        own["time_means"] = True
    values["options"] = {"mosi": own}
