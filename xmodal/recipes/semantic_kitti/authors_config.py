"""The settings file of the published code (``config_server_kitti.yaml``) as values of our settings.

    save_path: ./experiments/PMF-SemanticKitti/
    data_root: …/sequences
    n_epochs: 50
    sensor: {proj_h: 384, …}
    post: {KNN: {use: false, params: {knn: 5, …}}}

Every key of their file is known: it sets something, or a note of the run names it with the reason why it sets nothing.
A value that requires something else than this recipe is an error that names the command for it. An unknown key is an
error that names the closest one. Keys of ours that their file does not have: ``role``, ``teacher_checkpoint``,
``imagenet``, ``kd``, ``device``, ``amp``, ``view``, ``duplicate_rule``, ``metric``.

The file is read with PyYAML's safe reader: a reader of our own would need quotes, lists, comments and nesting, and its
errors would stay unnoticed. Only plain values are accepted, and a repeated key is an error.
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
TAGS = [f"tag:yaml.org,2002:{name}" for name in PLAIN]  # tags of plain values
# Mean and deviation of range, x, y, z and remission, by which the data set here normalises. A file with other numbers
# is refused: they would have no effect.
MEANS = (12.12, 10.88, 0.23, -1.04, 0.21)
DEVIATIONS = (12.32, 11.47, 6.91, 0.86, 0.16)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # YAML 1.1 reads 1e-5, without a dot, as text

DIRECT = {  # their key → our setting with the same value
    "n_epochs": "epochs",
    "warmup_epochs": "warmup",
    "momentum": "momentum",
    # in their code it reaches the SGD of the camera network alone; the student's AdamW has 0.01
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
FIXED: dict[str, tuple[Any, str]] = {  # key → the only accepted value, and what to do in place of another
    "dataset": ("SemanticKitti", "This recipe is for SemanticKITTI."),
    "nclasses": (20, "The data has 20 classes, with unlabeled."),
    "has_label": (True, "Training needs labels; `xmodal predict` reads frames without them."),
    "val_only": (False, "Score a run with `xmodal evaluate RUN`."),
    "is_debug": (False, "For a trial use synthetic data, with --preset small or --epochs 1."),
    "checkpoint": (None, "Continue a run with --out RUN --resume."),
    "pretrained_model": (None, "Take the teacher of another run with --teacher-checkpoint RUN."),
}
UNUSED = {
    "print_frequency": "the page shows some frames at the end",
    "val_frequency": "every epoch is scored",
    "experiment_id": "a part of the folder's name, with save_path",
}
CLOUDS = re.compile(r"p_flip[xy]|p_trans[xyz]|trans_?[xyz]_?(min|max)|p_rot_\w+|rot_(roll|pitch|yaw)_?(min|max)")
KD = {  # key of the block kd → our setting
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
    """The content of a file.

    Attributes:
        values: our setting → value; options of the data stand under ``options``.
        notes: sentences about keys that are not used.
    """

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_config(path: Path) -> Config:
    """Read a file; an error lists all of its problems."""
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give a config_server_kitti.yaml, or leave --config out.")
    content = parse_yaml(read_text(path), str(path))
    where, problems = str(path), []
    for key in content:
        if key not in KNOWN:
            problems.append(f"{where} has no key '{key}' that is known. {did_you_mean(str(key), sorted(KNOWN))}")
    # a block that is none is left out, so that the functions below can read all others
    for block in BLOCKS:
        if not isinstance(content.get(block) or {}, Mapping):
            problems.append(f"{where}: '{block}' is {content[block]!r}, expected keys of its own below it.")
            content = {key: value for key, value in content.items() if key != block}
    for key, (expected, instead) in FIXED.items():
        if key in content and content[key] != expected:
            problems.append(f"{where}: '{key}' is {content[key]!r}, expected {expected!r}. {instead}")
    config = Config()
    options: dict[str, Any] = {}
    _training(content, config, problems, where)
    _networks(content, config, problems, where)
    # after both: the name of the folder contains the batch size, the rate and the network
    _folder(content, config, options)
    _sensor(content, options, problems, where)
    _augmentation(content, config, options, problems, where)
    _knn(content, config, problems, where)
    _kd(content, config, problems, where)
    _ours(content, config, options, problems, where)
    if problems:
        raise InputError(problems)
    config.values["options"] = {DATA: options}
    unused = [f"{key} ({why})" for key, why in UNUSED.items() if key in content]
    config.notes += [f"{path.name}: not used are {', '.join(unused)}."] if unused else []
    return config


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
    """A node as plain values; a repeated key in a mapping is an error."""
    import yaml

    # the safe reader builds no Python objects; this check gives a sentence in place of its error
    if node is not None and node.tag not in TAGS:
        line = node.start_mark.line + 1
        raise InputError(f"{where}, line {line}: '{node.tag}' makes an object, expected plain values. Take it out.")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            if key in mapping:
                raise InputError(f"{where}, line {key_node.start_mark.line + 1}: '{key}' stands there twice. Keep one.")
            mapping[key] = _values(value_node, loader, where)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_values(each, loader, where) for each in node.value]
    value = None if node is None else loader.construct_object(node)
    # a style is the kind of quotes: text in quotes stays text
    return float(value) if isinstance(value, str) and node.style is None and NUMBER.fullmatch(value) else value


def _training(content: Mapping[str, Any], config: Config, problems: list[str], where: str) -> None:
    """Training, seeds and devices."""
    values = config.values
    for key, setting in {**DIRECT, **PMF}.items():
        if content.get(key) is not None:
            values[setting] = content[key]
    if "lr" in content:
        values |= {"learning_rate": content["lr"], "teacher_learning_rate": content["lr"]}
    if "seed" in content:
        values["seeds"] = (content["seed"],)
    gpus = 1
    if "gpu" in content:
        names = [name for name in str(content["gpu"]).replace(" ", "").split(",") if name]
        if not names or not all(name.isdigit() for name in names):
            problems.append(f"{where}: 'gpu' is {content['gpu']!r}, expected numbers of devices, as in \"0,1\".")
        gpus = max(len(names), 1)
        values["devices"] = gpus
        # several numbers are several GPUs: without them the command must not become as many processes on the CPU
        values |= {"accelerator": "cuda"} if gpus > 1 else {}
        if names != [str(number) for number in range(len(names))]:
            config.notes.append(
                f"gpu {content['gpu']}: {gpus} device(s) are used; CUDA_VISIBLE_DEVICES decides which ones."
            )
    if "batch_size" in content:
        size = content["batch_size"]
        sizes = size if isinstance(size, list) else [size]
        # `type`, because true is an int for isinstance
        if not 1 <= len(sizes) <= 2 or not all(type(each) is int and each > 0 for each in sizes):
            problems.append(f"{where}: 'batch_size' is {size!r}, expected frames per device, [training, validation].")
        else:
            # theirs counts the frames of one device, ours those of all devices together
            values["batch_size"] = sizes[0] * gpus


def _networks(content: Mapping[str, Any], config: Config, problems: list[str], where: str) -> None:
    """The teacher's network and its initial weights."""
    if "img_backbone" in content:
        backbones = ("resnet34", "resnet50", "resnet101", "resnet152")
        name = str(content["img_backbone"])
        if name not in backbones:
            problems.append(f"{where}: there is no img_backbone '{name}'. {did_you_mean(name, backbones)}")
        config.values["teacher_encoder"] = f"camera_{name}"
    if "imagenet_pretrained" in content:
        config.values["imagenet_pretrained"] = content["imagenet_pretrained"]


def _folder(content: Mapping[str, Any], config: Config, options: dict[str, Any]) -> None:
    """Folder of the data, and run folder."""
    if content.get("data_root"):
        options["root"] = str(content["data_root"])
    if content.get("save_path"):
        values = config.values
        size, rate = values.get("batch_size", 8), values.get("learning_rate", 0.001)
        backbone = str(content.get("img_backbone", "resnet34"))
        # the name that the published code gives its folder
        name = f"log_SemanticKitti_PMFNet-{backbone}_bs{size}-lr{rate:g}_{content.get('experiment_id', 'baseline')}"
        values["out"] = str(Path(str(content["save_path"])) / name)


def _sensor(content: Mapping[str, Any], options: dict[str, Any], problems: list[str], where: str) -> None:
    """Size and normalisation of the image."""
    block = content.get("sensor") or {}
    options |= {option: block[key] for key, option in SENSOR.items() if key in block}
    for key, expected in (("img_mean", MEANS), ("img_stds", DEVIATIONS)):
        if key in block and block[key] != [*expected]:
            problems.append(
                f"{where}: '{key}' is {block[key]}: the data is normalised by {list(expected)}. Leave it out."
            )
    _unknown(block, (*SENSOR, "name", "type", "img_mean", "img_stds"), f"{where}: 'sensor'", problems)
    if block.get("type", "perception-aware") not in ("perception-aware", "perspective"):
        problems.append(f"{where}: 'type' of the sensor is {block['type']!r}, expected 'perception-aware'.")


def _augmentation(
    content: Mapping[str, Any], config: Config, options: dict[str, Any], problems: list[str], where: str
) -> None:
    """Colour jitter; changes of clouds are noted and not used."""
    block = content.get("augmentation") or {}
    jitter = block.get("img_jitter")
    if jitter is not None:
        if not isinstance(jitter, list) or len(jitter) != 3:
            problems.append(f"{where}: 'img_jitter' is {jitter!r}, expected [brightness, contrast, saturation].")
        else:
            options |= dict(zip(("brightness", "contrast", "saturation"), jitter, strict=True))
    unknown = [key for key in block if key != "img_jitter" and not CLOUDS.fullmatch(key)]
    known = ("img_jitter", "p_flipx", "p_flipy", "p_transx", "trans_xmin", "p_rot_roll", "rot_rollmin")
    _unknown(dict.fromkeys(unknown), known, f"{where}: 'augmentation'", problems)
    if len(block) > len(unknown) + (jitter is not None):
        config.notes.append("Changes of clouds (p_flip, p_trans, p_rot) are off, as in both published trainings.")


def _knn(content: Mapping[str, Any], config: Config, problems: list[str], where: str) -> None:
    """The vote of neighbours, which belongs to scoring."""
    post = content.get("post") or {}
    _unknown(post, ("KNN",), f"{where}: 'post'", problems)
    knn = post.get("KNN") or {}
    _unknown(knn, ("use", "params"), f"{where}: 'KNN'", problems)
    _unknown(knn.get("params") or {}, ("knn", "search", "sigma", "cutoff"), f"{where}: 'params' of KNN", problems)
    if knn.get("use"):
        config.notes.append("The vote of neighbours (KNN) belongs to `xmodal evaluate`, which has a flag for it.")


def _kd(content: Mapping[str, Any], config: Config, problems: list[str], where: str) -> None:
    """Distillation."""
    block = content.get("kd") or {}
    _unknown(block, tuple(KD), f"{where}: 'kd'", problems)
    config.values |= {setting: block[key] for key, setting in KD.items() if key in block}
    # `none` is text in YAML and `null` is no value; both mean no mask here
    if "kd_mask" in config.values and config.values["kd_mask"] is None:
        config.values["kd_mask"] = "none"


ROLES: dict[str, dict[str, Any]] = {"teacher": {"until": "teacher"}, "student": {}, "pmf": {"pmf": True}}


def _ours(content: Mapping[str, Any], config: Config, options: dict[str, Any], problems: list[str], where: str) -> None:
    """Keys that their file does not have."""
    values = config.values
    for key, choices in (("role", ROLES), ("device", ("auto", "cpu", "cuda")), ("metric", ("benchmark", "reference"))):
        if key in content and content[key] not in choices:
            problems.append(f"{where}: '{key}' is {content[key]!r}. {did_you_mean(str(content[key]), choices)}")
    values |= ROLES.get(content.get("role", ""), {})
    # auto leaves the choice to the key gpu
    values |= {"accelerator": content["device"]} if content.get("device", "auto") != "auto" else {}
    values |= {"precision": "bf16-mixed" if content["amp"] else "32-true"} if "amp" in content else {}
    values |= {"metric": "mean_iou_reference"} if content.get("metric") == "reference" else {}
    options |= {"view": content["view"]} if "view" in content else {}
    options |= {"duplicates": content["duplicate_rule"]} if "duplicate_rule" in content else {}


def _unknown(block: Any, known: tuple[str, ...], where: str, problems: list[str]) -> None:
    """Add a problem for every unknown key of a block."""
    if not isinstance(block, Mapping):
        problems.append(f"{where} is {block!r}, expected keys of its own below it.")
        return
    problems += [f"{where} has no key '{key}'. {did_you_mean(str(key), known)}" for key in block if key not in known]
