"""The settings file of the published LiDAR training: what each of its keys becomes, and what is refused."""

import pytest
import torch

from xmodal.cli.recipe_flags import read_settings
from xmodal.engine.processes.launch import launch
from xmodal.errors import InputError
from xmodal.recipes.semantic_kitti.authors_config import parse_yaml, read_config
from xmodal.recipes.semantic_kitti.settings import Settings

PUBLISHED = """\
save_path: "./experiments/PMF-SemanticKitti/"   # parent of run folders
seed: 1
gpu: "0,1"
print_frequency: 2
n_threads: 4
experiment_id: "baseline_timestamp"
val_only: false
has_label: true
is_debug: false
n_epochs: 50
batch_size: [4, 4]
lr: 0.001
warmup_epochs: 1
momentum: 0.9
weight_decay: 1e-5
val_frequency: 1
dataset: "SemanticKitti"
nclasses: 20
data_root: "/data/sequences"
base_channels: 32
img_backbone: "resnet34"
imagenet_pretrained: false
lambda: 1.0
gamma: 0.5
tau: 0.7
checkpoint: null
pretrained_model: null
augmentation:
  p_flipx: 0.
  p_flipy: 0.5
  p_transx: 0.5
  trans_xmin: -5
  trans_xmax: 5
  p_rot_yaw: 0.5
  rot_yawmin: 5
  rot_yawmax: -5
  img_jitter: [0.4, 0.4, 0.3]
sensor:
  name: "HDL64"
  type: "perception-aware"
  proj_h: 384
  proj_w: 1232
  proj_ht: 256
  proj_wt: 1024
  h_pad: 7
  w_pad: 3
  img_mean: [12.12, 10.88, 0.23, -1.04, 0.21]
  img_stds: [12.32, 11.47, 6.91, 0.86, 0.16]
post:
  KNN:
    use: false
    params: {knn: 5, search: 5, sigma: 1.0, cutoff: 1.0}
"""


@pytest.fixture
def config(tmp_path):
    """Writes a file, the published one with some of its lines changed and others added."""

    def write(more="", **changes):
        path, text = tmp_path / "config_server_kitti.yaml", PUBLISHED
        for key, value in changes.items():
            key = key.rstrip("_")
            lines = [line for line in text.splitlines() if line.lstrip().startswith(f"{key}:")]
            assert len(lines) == 1, key
            text = text.replace(lines[0], lines[0].partition(":")[0] + f": {value}")
        path.write_text(text + more)
        return path

    return write


def test_every_key_of_the_published_file_is_known_and_sets_what_it_says(config):
    found = read_config(config())

    options = found.values.pop("options")["semantic-kitti"]
    assert found.values == {
        "accelerator": "cuda",
        "epochs": 50,
        "warmup": 1,
        "momentum": 0.9,
        "teacher_weight_decay": 1e-5,
        "workers": 4,
        "student_width": 32,
        "lovasz_weight": 1.0,
        "perception_weight": 0.5,
        "perception_threshold": 0.7,
        "learning_rate": 0.001,
        "teacher_learning_rate": 0.001,
        "seeds": (1,),
        "devices": 2,
        "batch_size": 8,
        "teacher_encoder": "camera_resnet34",
        "imagenet_pretrained": False,
        "out": "experiments/PMF-SemanticKitti/log_SemanticKitti_PMFNet-resnet34_bs8-lr0.001_baseline_timestamp",
    }
    assert options == {
        "root": "/data/sequences",
        **{"height": 384, "width": 1232, "train_height": 256, "train_width": 1024, "pad_rows": 7, "pad_cols": 3},
        **{"brightness": 0.4, "contrast": 0.4, "saturation": 0.3},
    }


def test_what_sets_nothing_is_named_with_a_reason(config):
    notes = " ".join(read_config(config()).notes)

    assert "print_frequency" in notes and "val_frequency (every epoch is scored)" in notes
    assert "Changes of clouds" in notes and "both published trainings" in notes


def test_the_published_file_gives_the_published_preset(config):
    ours, theirs = Settings().described(), Settings(config=config()).described()

    differ = {key for key in ours if ours[key] != theirs[key]}
    assert differ == {"devices", "accelerator", "options"}  # which devices there are, and where the data is


def test_all_unknown_keys_are_named_with_the_nearest_one(config):
    path = config("lrr: 1\nkd: {los: kl}\n", h_pad="7\n  proj_hh: 3", use="false\n    parms: 1")

    with pytest.raises(InputError) as caught:
        read_config(path)

    said = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    for key, near in (("lrr", "lr"), ("los", "loss"), ("proj_hh", "proj_h"), ("parms", "params")):
        assert f"'{key}'" in said and f"Did you mean '{near}'" in said


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("val_only", "true", "xmodal evaluate"),
        ("is_debug", "true", "--preset small"),
        ("has_label", "false", "xmodal predict"),
        ("checkpoint", "best.pth", "--resume"),
        ("pretrained_model", "best.pth", "--teacher-checkpoint"),
        ("nclasses", "17", "20 classes"),
        ("dataset", "nuScenes", "SemanticKITTI"),
        ("img_backbone", "resnet35", "no img_backbone 'resnet35'"),
        ("gpu", "cuda", "numbers of devices"),
        ("batch_size", "[0, 4]", "frames per device"),
        ("img_jitter", "0.4", "brightness, contrast, saturation"),
        ("img_mean", "[0, 0, 0, 0, 0]", "normalised by"),
        ("img_mean", "[0, x]", "normalised by"),
        ("type", "range", "perception-aware"),
        ("p_flipx", "0\n  p_flipz: 1", "'p_flipz'"),
    ],
)
def test_what_this_recipe_does_not_do_is_refused_with_what_does_it(key, value, instead, config):
    with pytest.raises(InputError) as caught:
        read_config(config(**{key: value}))

    assert len(caught.value.problems) == 1 and instead in str(caught.value)


def test_weights_of_imagenet_must_be_named_where_they_are_asked_for(config):
    with pytest.raises(ValueError, match=r"nothing is downloaded. Name torchvision's weights"):
        Settings(config=config(imagenet_pretrained="true"))

    assert (
        Settings(config=config("imagenet: resnet34.pth\n", imagenet_pretrained="true")).imagenet.name == "resnet34.pth"
    )


def test_our_own_keys_say_role_distillation_and_machine(config):
    ours = "role: teacher\ndevice: cpu\namp: true\nmetric: reference\nduplicate_rule: file\n"
    kd = "kd: {loss: dkd, mask: none, weight: 3, temperature: 2, pixels: labelled, reduction: pixel}\n"

    found = Settings(config=config(ours + kd))

    assert (found.until, found.accelerator, found.precision) == ("teacher", "cpu", "bf16-mixed")
    assert found.metric == "mean_iou_reference" and found.options["semantic-kitti"]["duplicates"] == "file"
    assert (found.kd_loss, found.kd_weight, found.kd_temperature, found.kd_pixels) == (("dkd",), 3, 2, "labelled")


def test_an_unknown_role_is_a_sentence(config):
    with pytest.raises(InputError, match="Did you mean 'teacher'"):
        read_config(config("role: techer\n"))


def test_flags_go_on_top_of_the_file_and_the_file_on_top_of_the_preset(config):
    words = ["--config", str(config()), "--preset", "small", "--epochs", "3", "--semantic-kitti.width", "320"]

    found, _ = read_settings("semantic-kitti", words, prog="xmodal run semantic-kitti")

    assert (found.epochs, found.batch_size, found.optimizer, found.student_width) == (3, 8, "adamw", 32)
    assert found.teacher_optimizer == "adamw"  # of the preset: the file says nothing of it
    options = found.options["semantic-kitti"]
    assert (options["width"], options["height"], options["augment"]) == (320, 384, False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1e-5", 1e-5),
        ("a: 1E5", 1e5),
        ("a: .5e-1", 0.05),
        ('a: "1e-5"', "1e-5"),
        ("a: 1e", "1e"),
        ("a: off", False),
        ("a: ~", None),
        ("a: [1, 2.5, x]", [1, 2.5, "x"]),
        ("a:\n  b: {c: no}", {"b": {"c": False}}),
    ],
)
def test_values_are_read_as_people_mean_them(text, value):
    assert parse_yaml(text, "a file") == {"a": value}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3", "a file, line 3: 'a' stands there twice"),
        ("a: {b: 1, b: 2}", "'b' stands there twice"),
        ("a: [1", "a file is no YAML file"),
        ("", "holds no keys"),
        ("- 1\n- 2", "holds no keys"),
        ("a: !!python/object/apply:os.system ['true']", "makes an object"),
    ],
)
def test_what_is_no_settings_file_is_a_sentence(text, sentence):
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        parse_yaml(text, "a file")


def test_a_block_that_is_none_and_a_missing_file_are_sentences(config, tmp_path):
    with pytest.raises(InputError, match="'kd' is 'kl', expected keys of its own"):
        read_config(config("kd: kl\n"))
    with pytest.raises(InputError, match="There is no file"):
        read_config(tmp_path / "none.yaml")


def test_several_gpus_are_not_replaced_by_processes_on_the_cpu(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # as on a machine without a GPU
    path = config("device: auto\n")
    settings, _ = read_settings("semantic-kitti", ["--config", str(path)], prog="xmodal run semantic-kitti")

    with pytest.raises(InputError, match="--devices 2 asks for 2 cuda device.* has 0. .*--accelerator cpu"):
        launch(settings.machine())


@pytest.mark.parametrize(("more", "words"), [("device: cpu\n", []), ("", ["--accelerator", "cpu"])])
def test_several_processes_on_the_cpu_can_be_asked_for(more, words, config):
    line = ["--config", str(config(more)), *words]

    settings, _ = read_settings("semantic-kitti", line, prog="xmodal run semantic-kitti")

    assert (settings.accelerator, settings.devices) == ("cpu", 2)


def test_one_gpu_is_the_one_that_there_is(config):
    settings, _ = read_settings("semantic-kitti", ["--config", str(config(gpu='"0"'))], prog="xmodal")

    assert (settings.accelerator, settings.devices) == ("auto", 1)
