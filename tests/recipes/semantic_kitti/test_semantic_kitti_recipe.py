"""The recipe on SemanticKITTI, on made frames of 64×32 pixels and with networks of a few channels."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from xmodal.cli.experiments import _lines
from xmodal.cli.main import answer
from xmodal.data.semantic_kitti.synthetic import make
from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.models.pixels.camera_net import CameraEncoder
from xmodal.recipes.semantic_kitti import experiment
from xmodal.recipes.semantic_kitti.experiment import earlier_teacher
from xmodal.recipes.semantic_kitti.settings import Settings
from xmodal.study.bench import Bench
from xmodal.study.controls import UNTRAINED
from xmodal.version import __version__

TINY = {
    "preset": "small",
    "epochs": 2,
    "batch_size": 2,
    "student_width": 2,
    "seeds": (0,),
    "accelerator": "cpu",
    "gap_frames": 2,
}
ALONE = {"shuffled": False, "untrained": False}
WEIGHTS = ("best/image.safetensors", "best/lidar.safetensors", "last.safetensors")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four frames to train on, one that chooses the epoch, three to test on."""
    folder = tmp_path_factory.mktemp("kitti") / "root"
    return make(folder, sequences="0,8", frames=5, width=64, height=32, beams=16, turns=128, keep=0.3)


@pytest.fixture(scope="module")
def tiny(root):
    """Settings on these frames."""
    return lambda **more: Settings(**{**TINY, "options": {"semantic-kitti": {"root": str(root)}}, **more})


@pytest.fixture(scope="module")
def teacher_outputs(tiny, tmp_path_factory):
    """A run with every stage, every control and PMFNet."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("taught") / "run"
    return experiment.run(tiny(out=out, pmf=True)), out


def assert_same_weights(first, second):
    found = [name for name in WEIGHTS if (first / name).exists()]
    assert len(found) == 2
    for name in found:
        mine, theirs = load_file(first / name), load_file(second / name)
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine), name


def test_one_run_holds_teacher_control_student_their_controls_and_the_network_of_both(teacher_outputs):
    result, _ = teacher_outputs

    assert [(row["name"], row["role"], row["needs"]) for row in result["rows"]] == [
        ("teacher", "teacher", ["image"]),
        ("no-KD", "control", ["lidar"]),
        ("kd kl", "method", ["lidar"]),
        ("kd kl (shuffled teacher)", "shuffled", ["lidar"]),
        ("kd kl (untrained teacher)", "untrained", ["lidar"]),
        ("pmf", "teacher", ["lidar", "image"]),
    ]
    assert len({row["parameters"] for row in result["rows"] if row["needs"] == ["lidar"]}) == 1
    # one seed shows no gain
    assert result["deploy"].startswith("seed-0/no-KD/students/lidar") and result["ship"]["instead"] == "kd kl"


def test_every_training_leaves_checkpoint_settings_log_and_events(teacher_outputs):
    _, out = teacher_outputs

    for name in ("teacher", "no-KD", "kd-kl", "pmf"):
        folder = out / "seed-0" / name
        names = ("settings.json", "history.jsonl", "log.txt", "events.out.tfevents.*", "last.safetensors", "best")
        assert all(list(folder.glob(name)) for name in names)
    fits = [json.loads((out / "seed-0" / name / "settings.json").read_text())["fit"] for name in ("teacher", "kd-kl")]
    assert [fit["learning_rate"] for fit in fits] == [3e-3, 3e-3]


def test_the_tables_show_each_class_and_the_gap_beside_the_gain(teacher_outputs):
    result, _ = teacher_outputs
    classes, gap = result["tables"]

    shown = [sum(line) for line in result["rows"][0]["test"]["confusion"]]
    assert len(classes["rows"]) == sum(pixels > 0 for pixels in shown) + 1 and "unlabeled" not in str(classes["rows"])
    assert classes["header"][2:] == ["teacher (%)", "no-KD (%)", "kd kl (%)", "pmf (%)"]
    car = next(row for row in classes["rows"] if row[0] == "car")
    assert car[2] == f"{100 * result['rows'][0]['test']['iou'][1]:.1f}"
    teacher = [float(row[2]) for row in classes["rows"]]
    assert teacher[-1] == pytest.approx(np.mean(teacher[:-1]), abs=0.06)
    assert [row[0] for row in gap["rows"]] == [row["name"] for row in result["rows"] if row["needs"] == ["lidar"]]
    assert gap["rows"][0][3] == "–" and len(result["gaps"]) == 4
    assert all(0 <= gap[key] <= np.log(2) for gap in result["gaps"] for key in ("ncjsd", "tcjsd"))


def test_the_page_shows_frames_as_camera_labels_networks_and_errors(teacher_outputs):
    result, out = teacher_outputs
    page = (out / "report.html").read_text()

    over = re.findall(r'<figcaption class="over">([^<]+)</figcaption>', page)
    assert over[:4] == ["camera", "labels", "teacher", "teacher, errors"] and "kd kl, errors" in over
    assert page.count('class="legend"') == 1 and "road" in page and "untrained teacher" in page
    with np.load(out / result["class_maps"]["file"]) as arrays:
        assert arrays["pictures"].shape == (4, 3, 32, 64) and arrays["maps"].shape == (4, 4, 32, 64)
        assert (arrays["labels"][~arrays["seen"]] == 0).all() and arrays["frames"].tolist()[0] == "08/000000"


class Breaks(Progress):
    """Breaks off when the first epoch of a training is over, behind the last checkpoint."""

    def __init__(self, title):
        super().__init__(quiet=True)
        self.wanted = title

    def epoch(self, row):
        if self.title.endswith(self.wanted) and row["epoch"] == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stage", ["teacher", "kd kl"])
def test_a_run_that_broke_off_ends_with_the_weights_of_an_unbroken_one(stage, tiny, teacher_outputs, tmp_path):
    known = {} if stage == "teacher" else {"teacher_checkpoint": teacher_outputs[1]}
    until = "teacher" if stage == "teacher" else "student"
    settings = tiny(out=tmp_path / "run", save_every=1, until=until, pictures=0, **known, **ALONE)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(settings, progress=Breaks(stage))
    broken = tmp_path / "run" / "seed-0" / stage.replace(" ", "-")
    assert (broken / "checkpoints").is_dir() and not (broken / "result.json").exists()

    experiment.run(settings.model_copy(update={"resume": True}))

    assert_same_weights(broken, teacher_outputs[1] / "seed-0" / broken.name)


def test_stages_are_kept_and_the_test_frames_unread_until_all_are_trained(tiny, teacher_outputs, tmp_path):
    first = experiment.run(tiny(out=tmp_path / "run", until="teacher", **ALONE))

    assert first["rows"] == [] and "The test frames are not read" in " ".join(_lines(first))
    assert {path.name for path in (tmp_path / "run" / "seed-0").iterdir()} == {"teacher"}
    before = (tmp_path / "run" / "seed-0" / "teacher" / "history.jsonl").stat().st_mtime_ns
    whole = experiment.run(tiny(out=tmp_path / "run", resume=True, **ALONE))
    assert [row["test"] for row in whole["rows"]] == [row["test"] for row in teacher_outputs[0]["rows"][:3]]
    assert (tmp_path / "run" / "seed-0" / "teacher" / "history.jsonl").stat().st_mtime_ns == before


def test_a_teacher_of_another_run_teaches_the_same_student(tiny, teacher_outputs, tmp_path):
    result = experiment.run(tiny(out=tmp_path / "run", teacher_checkpoint=teacher_outputs[1], pictures=0, **ALONE))

    assert [row["test"] for row in result["rows"]] == [row["test"] for row in teacher_outputs[0]["rows"][:3]]
    assert_same_weights(tmp_path / "run" / "seed-0" / "kd-kl", teacher_outputs[1] / "seed-0" / "kd-kl")
    assert "class_maps" not in result and any("The teacher was taken from" in note for note in result["notes"])


def test_a_teacher_of_another_kind_is_refused_before_anything_is_written(tiny, teacher_outputs, tmp_path):
    student = teacher_outputs[1] / "seed-0" / "no-KD" / "students" / "lidar" / "student.safetensors"
    with pytest.raises(InputError, match="reads lidar; the teacher reads image"):
        earlier_teacher(student, 0)
    with pytest.raises(InputError, match="holds no finished teacher"):
        earlier_teacher(tmp_path, 0)
    wide = tiny(out=tmp_path / "run", teacher_checkpoint=teacher_outputs[1], teacher_width=8)
    with pytest.raises(InputError, match="do not fit this network"):
        experiment.run(wide)

    assert not (tmp_path / "run").exists()


def test_half_precision_with_a_mask_of_pixels_trains(tiny, tmp_path):
    settings = tiny(precision="bf16", kd_mask="pssm", epochs=1, out=tmp_path / "run", pictures=1, **ALONE)

    result = experiment.run(settings)

    assert [row["name"] for row in result["rows"]] == ["teacher", "no-KD", "kd kl, pssm"]
    assert all(np.isfinite(row["valid"]["cross_entropy"]) for row in result["rows"])


def test_the_command_takes_the_settings_file_of_the_authors(root, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        f"save_path: {tmp_path / 'runs'}\ndata_root: {root / 'sequences'}\nn_epochs: 1\nbatch_size: [2, 2]\ngpu: '0'\n"
        "lr: 1e-3\nbase_channels: 2\nn_threads: 0\nimagenet_pretrained: false\nkd: {loss: none}\n"
        "sensor: {proj_h: 32, proj_w: 64, proj_ht: 16, proj_wt: 32, h_pad: 0, w_pad: 0}\n"
    )

    status = answer(["run", "semantic-kitti", "--config", str(config), "--teacher-encoder", "camera_resnet10"])

    (out,) = (tmp_path / "runs").iterdir()
    assert status == 0
    assert [row["name"] for row in json.loads((out / "result.json").read_text())["rows"]] == ["no-KD"]
    assert out.name == "log_SemanticKitti_PMFNet-resnet34_bs2-lr0.001_baseline" and (out / "report.html").exists()
    assert (out / "config.yaml").read_bytes() == config.read_bytes()
    environment = json.loads((out / "environment.json").read_text())
    assert environment["xmodal"] == __version__ and re.fullmatch(r"[0-9a-f]{40}(-dirty)?", environment["commit"])


# ---- what is told to methods and training


def test_published_numbers_are_the_defaults():
    plan = Settings().plan()

    teacher, student = plan.fit("teacher"), plan.fit()

    assert (teacher.optimizer, teacher.nesterov, teacher.momentum) == ("sgd", True, 0.9)
    assert (teacher.learning_rate, teacher.weight_decay) == (1e-3, 1e-5)
    assert (student.optimizer, student.learning_rate, student.weight_decay) == ("adamw", 1e-3, 0.01)
    for fit in (teacher, student):
        assert (fit.epochs, fit.batch_size, fit.warmup) == (50, 8, 1.0)
        assert (fit.schedule, fit.schedule_per, fit.schedule_point) == ("cosine", "step", "end")
    assert plan.network("teacher")["encoder"] == "camera_resnet34"
    assert plan.network("student") | {"encoder": "salsanext", "width": 32} == plan.network("student")


@pytest.mark.parametrize(
    ("asked", "name", "method", "own"),
    [
        ({}, "kd kl", "kd", {"pixels": "projected", "reduction": "pixel", "kd_weight": 1.0, "task_weight": 1.0}),
        ({"kd_loss": "dkd,at:0.1"}, "kd dkd+at:0.1", "kd", {"loss": ("dkd", "at:0.1")}),
        ({"kd_mask": "pssm"}, "kd kl, pssm", "ntdh", {"mask": "samples", "cosine": "probabilities", "detach": True}),
        ({"kd_mask": "random", "kd_ratio": 0.5}, "kd kl, random", "ntdh", {"remove": "random", "ratio": 0.5}),
        ({"kd_mask": "topk"}, "kd kl, topk", "ntdh", {"mask": "channels", "remove": "least", "ratio": 0.75}),
    ],
)
def test_the_block_of_distillation_becomes_a_method(asked, name, method, own):
    (entry,) = Settings(**asked).comparison().entries

    assert (entry.name, entry.method) == (name, method) and {**entry.options, **own} == entry.options


def test_as_published_sets_the_term_of_the_authors_the_rules_of_the_data_and_the_score():
    settings = Settings(as_published=True, kd_loss="dkd")

    (entry,) = settings.comparison().entries

    options = entry.options
    assert (entry.name, entry.method) == ("kd kl, pssm", "ntdh")
    assert options["detach"] is False and options["temperature"] == 1.0
    assert (options["pixels"], options["reduction"], settings.metric) == ("all", "reference", "mean_iou_reference")
    assert settings.options["semantic-kitti"] == {"as_published": True}
    assert settings.pmf_options()["detach"] is False


def test_the_published_term_is_the_mean_over_pixels_and_classes_under_the_mask(make_kitti_bench):
    from xmodal.methods import METHODS
    from xmodal.study.plan import method_settings

    settings, bench = make_kitti_bench(as_published=True)
    (entry,) = settings.comparison().entries
    card = METHODS[entry.method]
    method = bench.build(card, method_settings(card, {**entry.options, "detach": True})).eval()
    batch = next(iter(bench.batches("valid")))
    teacher_outputs = method.teach(batch)

    value = method.training_step(batch, teacher_outputs).losses["kd"]

    t, s = teacher_outputs["outputs"].double().softmax(1), method.network(batch.inputs).double().softmax(1)
    cosine = torch.nn.functional.cosine_similarity(s, t, dim=1)
    omega = torch.where(t.argmax(1) == batch.target, 1.0, (cosine + 1) / 2 * (cosine >= 0.996))
    wanted = (omega[:, None] * t * (t.log() - s.clamp(min=1e-8).log())).mean()
    torch.testing.assert_close(value.double(), wanted, rtol=1e-4, atol=1e-9)


@pytest.fixture
def make_kitti_bench(tiny):
    def make(**more):
        settings = tiny(**more)
        from xmodal.data import open_data

        data = open_data("semantic-kitti", options=settings.options["semantic-kitti"])
        return settings, Bench(data, settings.plan(), seed=0, fabric=launch(settings.machine()))

    return make


def test_weights_of_imagenet_start_the_teacher_alone_and_no_untrained_one(make_kitti_bench, tmp_path):
    _, plain = make_kitti_bench()
    fresh = plain.network(("image",), side="teacher").module
    (encoder,) = (module for module in fresh.modules() if isinstance(module, CameraEncoder))
    weights = {name: tensor + 1 for name, tensor in encoder.state_dict().items()}
    torch.save({**weights, "fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}, tmp_path / "net.pth")

    _, bench = make_kitti_bench(imagenet=tmp_path / "net.pth")
    started = bench.network(("image",), side="teacher").module.state_dict()
    with bench._with_teacher(UNTRAINED):
        untrained = bench.teacher().state_dict()

    first = "encoders.from_image.encoder.conv1.weight"
    assert torch.equal(started[first], weights["conv1.weight"])
    assert torch.equal(untrained[first], fresh.state_dict()[first])
    assert torch.equal(started["head.weight"], fresh.state_dict()["head.weight"])


def test_answers_for_thousands_of_frames_are_not_kept(make_kitti_bench):
    _, bench = make_kitti_bench()

    assert bench._room_for_outputs(6)
    bench.info = replace(bench.info, rows={**bench.info.rows, "test": {"lidar": 4071, "image": 4071}})
    assert bench._room_for_outputs(6)
    bench.info = replace(bench.info, target_shape=(384, 1232))
    assert not bench._room_for_outputs(1)


def test_no_loss_means_no_teacher_unless_it_is_asked_for_alone():
    alone = Settings(kd_loss="none").comparison()

    assert (alone.train_teacher, alone.train_control, alone.train_students, alone.entries) == (False, True, True, ())
    assert stages(until="teacher") == (True, False, False)
    assert stages(until="control") == (True, True, False)
    assert stages(kd_loss="none", until="teacher") == (True, False, False)


def stages(**flags):
    comparison = Settings(**flags).comparison()
    return comparison.train_teacher, comparison.train_control, comparison.train_students


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"kd_loss": "none,kl"}, "none stands alone"),
        ({"imagenet_pretrained": True}, "no file is named"),
        ({"imagenet": "a.pth", "teacher_checkpoint": "run"}, "needs no --imagenet"),
        ({"options": {"semantic-kitti": {"view": "range"}}}, "contains LiDAR alone"),
        ({"until": "pmf"}, "'teacher', 'control' or 'student'"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        Settings(**asked)


def test_a_misspelt_loss_and_a_missing_folder_are_told_before_anything_is_written(tiny, tmp_path):
    with pytest.raises(InputError, match="There is no loss called 'kll'"):
        experiment.run(tiny(kd_loss="kll", out=tmp_path / "run"))
    with pytest.raises(InputError, match="no folder was named"):
        experiment.run(Settings(out=tmp_path / "run", accelerator="cpu"))

    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_train_and_print_once(root, tmp_path):
    import subprocess
    import sys

    words = f"run semantic-kitti --preset small --semantic-kitti.root {root} --student-width 2 --epochs 1 --seeds 1"
    more = f"--no-shuffled --no-untrained --accelerator cpu --devices 2 --out {tmp_path / 'run'} --json"
    done = subprocess.run(
        [sys.executable, "-m", "xmodal.cli.main", *words.split(), *more.split()],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert [row["name"] for row in json.loads(done.stdout)["rows"]] == ["teacher", "no-KD", "kd kl"]
