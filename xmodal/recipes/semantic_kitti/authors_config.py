"""The settings file of the published code (``config_server_kitti.yaml``) as values of our recipe.

    save_path: ./experiments/PMF-SemanticKitti/
    data_root: …/sequences
    n_epochs: 50
    sensor: {proj_h: 384, …}
    post: {KNN: {use: false, params: {knn: 5, …}}}

Every key of theirs is known here: it sets something, or the notes of the run say why it sets nothing; one that asks for
what this recipe does not do is refused with what does it. A key that neither they nor we know is an error that names
the nearest one. Keys that theirs lacks are ours: ``role``, ``teacher_checkpoint``, ``imagenet``, ``kd``, ``device``,
``amp``, ``view``, ``duplicate_rule``.

The file is read with PyYAML's safe reader: a reader of our own would have to know quotes, lists, comments and nesting,
and would be wrong where nobody looks. It knows plain values alone, and refuses a key that stands there twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodal.errors import InputError, did_you_mean
from xmodal.files import read_text

DATA = "semantic-kitti"
PLAIN = "str int float bool null seq map timestamp merge value".split()
TAGS = [f"tag:yaml.org,2002:{name}" for name in PLAIN]  # of plain values
MEANS = (12.12, 10.88, 0.23, -1.04, 0.21)
DEVIATIONS = (12.32, 11.47, 6.91, 0.86, 0.16)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # YAML 1.1 takes 1e-5, without a dot, for a word

DIRECT = {  # their key → our setting, the value as it is
    "n_epochs": "epochs",
    "warmup_epochs": "warmup",
    "momentum": "momentum",
    "weight_decay": "teacher_weight_decay",
    "n_threads": "workers",
    "base_channels": "student_width",
    "lambda": "lovasz_weight",
    "imagenet": "imagenet",
    "teacher_checkpoint": "teacher_checkpoint",
}
PMF = {"gamma": "perception_weight", "tau": "perception_threshold"}
SENSOR = {  # their key → option of the data
    "proj_h": "height",
    "proj_w": "width",
    "proj_ht": "train_height",
    "proj_wt": "train_width",
    "h_pad": "pad_rows",
    "w_pad": "pad_cols",
}
FIXED: dict[str, tuple[Any, str]] = {  # key → the one value that makes sense here, and what to do about another
    "dataset": ("SemanticKitti", "This recipe is for SemanticKITTI."),
    "nclasses": (20, "The data has 20 classes, with unlabeled."),
    "has_label": (True, "Frames without labels can't be trained on; `xmodal predict` answers for them."),
    "val_only": (False, "Score a run with `xmodal evaluate RUN`."),
    "is_debug": (False, "Try things out on made data, with --preset small or --epochs 1."),
    "checkpoint": (None, "Go on with a run by --out RUN --resume."),
    "pretrained_model": (None, "A teacher of another run is named by --teacher-checkpoint RUN."),
}
UNUSED = {
    "print_frequency": "the page shows pictures of some frames at the end",
    "val_frequency": "every epoch is scored",
    "experiment_id": "a part of the folder's name, with save_path",
}
CLOUDS = re.compile(r"p_flip[xy]|p_trans[xyz]|trans_?[xyz]_?(min|max)|p_rot_\w+|rot_(roll|pitch|yaw)_?(min|max)")
KD = {
    "loss": "kd_loss",
    "mask": "kd_mask",
    "weight": "kd_weight",
    "temperature": "kd_temperature",
    "pixels": "kd_pixels",
    "reduction": "kd_reduction",
}
OURS = ("role", "kd", "device", "amp", "view", "duplicate_rule", "metric")
BLOCKS = ("augmentation", "sensor", "post", "kd")
KNOWN = (
    *DIRECT,
    *PMF,
    *FIXED,
    *UNUSED,
    *("save_path", "seed", "gpu", "batch_size", "lr", "img_backbone", "imagenet_pretrained", "data_root"),
    *OURS,
    *BLOCKS[:3],
)


@dataclass
class Config:
    """What a file says.

    Attributes:
        values: our setting → value; those of the data under ``options``.
        notes: what was read and left aside, in sentences.
    """

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_config(path: Path) -> Config:
    """Read a file; everything that is wrong with it is said at once."""
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give a config_server_kitti.yaml, or leave --config out.")
    content = parse_yaml(read_text(path), str(path))
    where, problems = str(path), []
    for key in content:
        if key not in KNOWN:
            problems.append(f"{where} has no key '{key}' that is known. {did_you_mean(str(key), sorted(KNOWN))}")
    for block in BLOCKS:
        if not isinstance(content.get(block) or {}, Mapping):
            problems.append(f"{where}: '{block}' is {content[block]!r}, expected keys of its own below it.")
            content = {key: value for key, value in content.items() if key != block}
    for key, (wanted, instead) in FIXED.items():
        if key in content and content[key] != wanted:
            problems.append(f"{where}: '{key}' is {content[key]!r}, expected {wanted!r}. {instead}")
    found = Config()
    options: dict[str, Any] = {}
    for convert in (_training, _networks, _folder, _sensor, _augmentation, _knn, _kd, _ours):
        convert(content, found, options, problems, where)
    if problems:
        raise InputError(problems)
    found.values["options"] = {DATA: options}
    left = [f"{key} ({why})" for key, why in UNUSED.items() if key in content]
    found.notes += [f"{path.name}: not used are {', '.join(left)}."] if left else []
    return found


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """A YAML mapping as plain values.

    Example:
        >>> parse_yaml("lr: 1e-3  # a rate", "a file"), parse_yaml("post: {KNN: {use: false}}", "a file")
        ({'lr': 0.001}, {'post': {'KNN': {'use': False}}})
    """
    import yaml

    try:
        content = _values(yaml.compose(text, Loader=yaml.SafeLoader), yaml.SafeLoader(""), where)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is no YAML file: {' '.join(str(error).split())}. Correct it.") from error
    if not isinstance(content, dict):
        raise InputError(f"{where} holds no keys: expected a settings file, such as config_server_kitti.yaml.")
    return content


def _values(node: Any, loader: Any, where: str) -> Any:
    """A node as plain values; mappings with a key twice are refused."""
    import yaml

    if node is not None and node.tag not in TAGS:
        line = node.start_mark.line + 1
        raise InputError(f"{where}, line {line}: '{node.tag}' makes an object, expected plain values. Take it out.")
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            if key in found:
                raise InputError(f"{where}, line {key_node.start_mark.line + 1}: '{key}' stands there twice. Keep one.")
            found[key] = _values(value_node, loader, where)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_values(each, loader, where) for each in node.value]
    value = None if node is None else loader.construct_object(node)
    return float(value) if isinstance(value, str) and node.style is None and NUMBER.fullmatch(value) else value


def _training(content: Mapping[str, Any], found: Config, options: dict[str, Any], problems: list[str], at: str) -> None:
    values = found.values
    values.update({ours: content[key] for key, ours in DIRECT.items() if content.get(key) is not None})
    values.update({ours: content[key] for key, ours in PMF.items() if content.get(key) is not None})
    if "lr" in content:
        values |= {"learning_rate": content["lr"], "teacher_learning_rate": content["lr"]}
    if "seed" in content:
        values["seeds"] = (content["seed"],)
    gpus = 1
    if "gpu" in content:
        names = [name for name in str(content["gpu"]).replace(" ", "").split(",") if name]
        if not names or not all(name.isdigit() for name in names):
            problems.append(f"{at}: 'gpu' is {content['gpu']!r}, expected numbers of devices, as in \"0,1\".")
        gpus = max(len(names), 1)
        values["devices"] = gpus
        if names != [str(number) for number in range(len(names))]:
            found.notes.append(
                f"gpu {content['gpu']}: {gpus} device(s) are used; which ones, CUDA_VISIBLE_DEVICES says."
            )
    if "batch_size" in content:
        size = content["batch_size"]
        both = size if isinstance(size, list) else [size]
        if not 1 <= len(both) <= 2 or not all(type(one) is int and one > 0 for one in both):
            problems.append(f"{at}: 'batch_size' is {size!r}, expected frames per device, [training, validation].")
        else:
            values["batch_size"] = both[0] * gpus  # ours counts all devices together


def _networks(content: Mapping[str, Any], found: Config, options: dict[str, Any], problems: list[str], at: str) -> None:
    if "img_backbone" in content:
        known = ("resnet34", "resnet50", "resnet101", "resnet152")
        name = str(content["img_backbone"])
        if name not in known:
            problems.append(f"{at}: there is no img_backbone '{name}'. {did_you_mean(name, known)}")
        found.values["teacher_encoder"] = f"camera_{name}"
    if "imagenet_pretrained" in content:
        found.values["imagenet_pretrained"] = content["imagenet_pretrained"]


def _folder(content: Mapping[str, Any], found: Config, options: dict[str, Any], problems: list[str], at: str) -> None:
    if content.get("data_root"):
        options["root"] = str(content["data_root"])
    if content.get("save_path"):
        values = found.values
        size, rate = values.get("batch_size", 8), values.get("learning_rate", 0.001)
        backbone = str(content.get("img_backbone", "resnet34"))
        name = f"log_SemanticKitti_PMFNet-{backbone}_bs{size}-lr{rate:g}_{content.get('experiment_id', 'baseline')}"
        values["out"] = str(Path(str(content["save_path"])) / name)


def _sensor(content: Mapping[str, Any], found: Config, options: dict[str, Any], problems: list[str], at: str) -> None:
    block = content.get("sensor") or {}
    options |= {ours: block[key] for key, ours in SENSOR.items() if key in block}
    for key, wanted in (("img_mean", MEANS), ("img_stds", DEVIATIONS)):
        if key in block and block[key] != [*wanted]:
            problems.append(f"{at}: '{key}' is {block[key]}: the data is normalised by {list(wanted)}. Leave it out.")
    _unknown(block, (*SENSOR, "name", "type", "img_mean", "img_stds"), f"{at}: 'sensor'", problems)
    if block.get("type", "perception-aware") not in ("perception-aware", "perspective"):
        problems.append(f"{at}: 'type' of the sensor is {block['type']!r}, expected 'perception-aware'.")


def _augmentation(
    content: Mapping[str, Any], found: Config, options: dict[str, Any], problems: list[str], at: str
) -> None:
    block = content.get("augmentation") or {}
    jitter = block.get("img_jitter")
    if jitter is not None:
        if not isinstance(jitter, list) or len(jitter) != 3:
            problems.append(f"{at}: 'img_jitter' is {jitter!r}, expected [brightness, contrast, saturation].")
        else:
            options |= dict(zip(("brightness", "contrast", "saturation"), jitter, strict=True))
    unknown = [key for key in block if key != "img_jitter" and not CLOUDS.fullmatch(key)]
    known = ("img_jitter", "p_flipx", "p_flipy", "p_transx", "trans_xmin", "p_rot_roll", "rot_rollmin")
    _unknown(dict.fromkeys(unknown), known, f"{at}: 'augmentation'", problems)
    if len(block) > len(unknown) + (jitter is not None):
        found.notes.append("Changes of clouds (p_flip, p_trans, p_rot) are off, as in both published trainings.")


def _knn(content: Mapping[str, Any], found: Config, options: dict[str, Any], problems: list[str], at: str) -> None:
    post = content.get("post") or {}
    _unknown(post, ("KNN",), f"{at}: 'post'", problems)
    knn = post.get("KNN") or {}
    _unknown(knn, ("use", "params"), f"{at}: 'KNN'", problems)
    _unknown(knn.get("params") or {}, ("knn", "search", "sigma", "cutoff"), f"{at}: 'params' of KNN", problems)
    if knn.get("use"):
        found.notes.append("The vote of neighbours (KNN) belongs to `xmodal evaluate`, which has a flag for it.")


def _kd(content: Mapping[str, Any], found: Config, options: dict[str, Any], problems: list[str], at: str) -> None:
    block = content.get("kd") or {}
    _unknown(block, tuple(KD), f"{at}: 'kd'", problems)
    found.values |= {ours: block[key] for key, ours in KD.items() if key in block}
    if "kd_mask" in found.values and found.values["kd_mask"] is None:  # `none` is a word, `null` is nothing
        found.values["kd_mask"] = "none"


ROLES: dict[str, dict[str, Any]] = {"teacher": {"until": "teacher"}, "student": {}, "pmf": {"pmf": True}}


def _ours(content: Mapping[str, Any], found: Config, options: dict[str, Any], problems: list[str], at: str) -> None:
    values = found.values
    for key, known in (("role", ROLES), ("device", ("auto", "cpu", "cuda")), ("metric", ("benchmark", "reference"))):
        if key in content and content[key] not in known:
            problems.append(f"{at}: '{key}' is {content[key]!r}. {did_you_mean(str(content[key]), known)}")
    values |= ROLES.get(content.get("role", ""), {})
    values |= {"accelerator": content["device"]} if "device" in content else {}
    values |= {"precision": "bf16-mixed" if content["amp"] else "32-true"} if "amp" in content else {}
    values |= {"metric": "mean_iou_reference"} if content.get("metric") == "reference" else {}
    options |= {"view": content["view"]} if "view" in content else {}
    options |= {"duplicates": content["duplicate_rule"]} if "duplicate_rule" in content else {}


def _unknown(block: Mapping[str, Any], known: tuple[str, ...], where: str, problems: list[str]) -> None:
    if not isinstance(block, Mapping):
        problems.append(f"{where} is {block!r}, expected keys of its own below it.")
        return
    problems += [f"{where} has no key '{key}'. {did_you_mean(str(key), known)}" for key in block if key not in known]
