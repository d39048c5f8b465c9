import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from xmodal.cli.main import answer
from xmodal.cli.recipe_flags import read_settings
from xmodal.data import open_data
from xmodal.engine.optim import factor
from xmodal.errors import InputError
from xmodal.models.scenes.authors_weights import load_published
from xmodal.recipes.nyu_ssc.experiment import earlier_teacher, occupied, run, without_data
from xmodal.recipes.nyu_ssc.settings import NETWORKS, Settings
from xmodal.types import Batch


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """Four training rooms, of which one chooses the epoch, and two to test on."""
    from xmodal.data.nyu.synthetic import make

    return make(tmp_path_factory.mktemp("nyu") / "rooms", format="prepared", train=4, test=2)


def small(rooms, **changes):
    options = {"nyu": {"root": str(rooms)}}
    given = {
        "seeds": (0,),
        "epochs": 1,
        "teacher_epochs": 1,
        "shuffled": False,
        "untrained": False,
        "pictures": 1,
        "batch_size": 2,
    }
    return Settings(preset="small", options=options, **{**given, **changes})


@pytest.fixture(scope="module")
def ran(rooms, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "nyu"
    return run(small(rooms, out=out)), out


def test_pictures_need_no_stored_classes(rooms, tmp_path, monkeypatch, ran):
    monkeypatch.setattr("xmodal.study.bench.OUTPUT_BYTES", 0)
    out = tmp_path / "run"
    result = run(small(rooms, out=out))

    assert not list(out.glob("seed-0/*/predictions/*")) and list(ran[1].glob("seed-0/*/predictions/*"))
    assert result["notes"] == ran[0]["notes"] and result["rows"] == ran[0]["rows"]
    with np.load(out / "scenes.npz") as drawn, np.load(ran[1] / "scenes.npz") as kept:
        assert np.array_equal(drawn["maps"], kept["maps"]) and drawn["maps"].shape[:2] == (3, 1)
        assert list(drawn["names"]) == ["teacher", "no-KD", "kd kl"]


def test_a_fault_in_drawing_is_a_note_in_a_result_that_was_written_before(rooms, tmp_path, monkeypatch, ran):
    out, seen = tmp_path / "run", []

    def faulty(*arguments):
        seen.append(json.loads((out / "result.json").read_text())["rows"])
        raise KeyError("teacher")

    monkeypatch.setattr("xmodal.recipes.nyu_ssc.experiment.draw", faulty)
    result = run(small(rooms, out=out))

    note = "Test frames could not be drawn (KeyError: 'teacher'). Everything else is complete."
    assert result["notes"] == [*ran[0]["notes"], note] and result["rows"] == ran[0]["rows"]
    assert len(seen) == 1 and len(seen[0]) == len(result["rows"])
    assert note in json.loads((out / "result.json").read_text())["notes"]
    assert "Test frames could not be drawn" in (out / "report.html").read_text()


def test_a_fault_in_the_page_is_a_note_too(rooms, tmp_path, monkeypatch):
    monkeypatch.setattr("xmodal.reports.page.section", lambda *arguments: 1 / 0)
    out = tmp_path / "run"
    result = run(small(rooms, out=out, until="teacher"))

    assert any("report.html could not be drawn (ZeroDivisionError" in note for note in result["notes"])
    assert json.loads((out / "result.json").read_text())["notes"] == result["notes"]


def test_the_published_preset_has_the_published_numbers():
    settings = Settings()

    assert (settings.optimizer, settings.learning_rate, settings.momentum, settings.weight_decay) == (
        "sgd",
        0.01,
        0.9,
        5e-4,
    )
    assert (settings.epochs, settings.batch_size, settings.seeds) == (50, 4, (2019,))
    assert (settings.schedule, settings.schedule_every, settings.schedule_factor) == ("step", 100, 0.1)


def test_the_rate_of_the_published_script_really_falls_every_epoch():
    settings = Settings(epochs=5, schedule_every=1, schedule_factor=0.1).training()

    assert [factor(settings, epoch) for epoch in range(5)] == pytest.approx([1, 0.1, 0.01, 1e-3, 1e-4])


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_is_teacher_or_student(name):
    student = Settings(student_network=name).plan()
    teacher = Settings(teacher_network=name).plan()

    assert (student.network("student")["encoder"], student.student) == NETWORKS[name]
    assert (teacher.network("teacher")["encoder"], teacher.teacher) == NETWORKS[name]
    assert set(student.options["modalities"]) == {"depth", "rgb", *NETWORKS[name][1]}
    assert without_data(name).modalities == NETWORKS[name][1]


def test_flags_become_options_of_the_data_and_of_the_method():
    settings = Settings(cad=True, as_published=True, kd_voxels="nonempty", kd_mask="pssm", kd_loss=("kl", "dkd"))

    comparison = settings.comparison()
    assert comparison.plan.options["cad"] and comparison.plan.options["as_published"]
    assert comparison.metric == "mean_iou_reference"
    (entry,) = comparison.entries
    options = entry.options
    assert (entry.name, entry.method) == ("kd kl+dkd, pssm", "ntdh")
    assert options["pixels"] == "scored" and options["weighting"] == "classes" and options["mask"] == "samples"


@pytest.mark.parametrize("mask", ["random", "topk"])
def test_a_teacher_that_would_teach_nobody_is_refused(mask):
    with pytest.raises(ValidationError, match="trained jointly with the student.*Leave one of the two out"):
        Settings(kd_mask=mask, teacher_checkpoint="runs/other")


def test_what_is_read_is_for_the_networks_to_decide():
    with pytest.raises(ValidationError, match="modalities depth was given, and the networks read depth, rgb.*Leave"):
        Settings(options={"nyu": {"modalities": ("depth",)}})

    words = ["--nyu.root", "nowhere", "--student-network", "palnet", "--nyu.modalities"]
    with pytest.raises(InputError, match="modalities rgb, tsdf was given, and the networks read depth, rgb, tsdf"):
        read_settings("nyu-ssc", [*words, "rgb,tsdf"], prog="xmodal run nyu-ssc")
    found, _ = read_settings("nyu-ssc", words[:-1], prog="xmodal run nyu-ssc")
    assert found.plan().options["modalities"] == ("depth", "rgb", "tsdf")
    assert Settings(options={"nyu": {"modalities": ("rgb", "depth")}}).plan().options["modalities"] == ("depth", "rgb")


def of_masks(rooms, out, mask):
    result = run(small(rooms, kd_mask=mask, pictures=0, gap_frames=0, out=out))
    channels = json.loads((out / "seed-0" / f"kd-kl-{mask}" / "result.json").read_text())["method"]["channels"]
    return result, channels


@pytest.mark.slow
def test_a_teacher_is_heard_without_random_channels(rooms, tmp_path):
    result, channels = of_masks(rooms, tmp_path / "run", "random")

    assert [row["name"] for row in result["rows"]] == ["teacher", "no-KD", "kd kl, random"]
    assert (sum(channels["keep"]), len(channels["keep"]), channels["saliency"]) == (80, 320, [])


@pytest.mark.slow
def test_a_teacher_is_heard_without_the_least_salient_channels(rooms, tmp_path):
    _, channels = of_masks(rooms, tmp_path / "run", "topk")

    kept, value = np.array(channels["keep"]), np.array(channels["saliency"])
    assert kept.sum() == 80 and value[kept].min() >= value[~kept].max()


def test_settings_are_read_back_from_what_a_run_wrote(rooms):
    settings = small(rooms, metric="reference", cad=True)

    again = Settings.model_validate(settings.described())

    assert again.described() == settings.described()


def test_without_a_loss_there_is_no_teacher_and_none_stands_alone():
    alone = Settings(kd_loss="none").comparison()

    assert (alone.train_teacher, alone.train_control, alone.entries) == (False, True, ())
    assert alone.plan.options["modalities"] == ("depth",)
    with pytest.raises(ValidationError, match="none stands alone"):
        Settings(kd_loss="none,kl")


def test_a_network_alone_is_trained_and_scored_without_a_teachers_data(rooms, tmp_path):
    result = run(small(rooms, kd_loss="none", out=tmp_path / "alone"))

    (row,) = result["rows"]
    assert (row["role"], row["needs"]) == ("control", ["depth", "depth.position"])
    assert not (tmp_path / "alone" / "seed-0" / "teacher").exists() and (tmp_path / "alone" / "report.html").is_file()


def test_a_run_trains_scores_and_draws(ran):
    result, out = ran

    assert [row["name"] for row in result["rows"]] == ["teacher", "no-KD", "kd kl"]
    assert result["metric"] == "mean_iou"
    assert [table["title"] for table in result["tables"]] == [
        "Completion and classes",
        "Intersection over union of each class",
        "Gap between the modalities",
    ]
    lines = result["tables"][1]["rows"]
    assert lines[-1][0] == "mean of these" and "empty" not in [line[0] for line in lines]
    with np.load(out / "scenes.npz") as arrays:
        assert arrays["maps"].shape == (3, 1, 15, 9, 15) and arrays["labels"].shape == (1, 15, 9, 15)
        assert arrays["pictures"].shape == (1, 3, 120, 160)
    page = (out / "report.html").read_text()
    assert "Rooms of the test split" in page and "ground truth" in page
    assert all("completion_iou" in row["test"] for row in result["rows"])


def test_what_is_drawn_is_what_was_scored(ran, rooms):
    result, out = ran
    with np.load(out / "scenes.npz") as arrays:
        frame, maps = str(arrays["frames"][0]), arrays["maps"][:, 0]
    data = open_data("nyu", options={"root": str(rooms)})
    for row, drawn in zip(result["rows"], maps, strict=True):
        file = out / row["folder"] / "predictions" / f"{row['student']}.npz"
        with np.load(file) as said:
            names = [data.ids[number] for number in said["rows"]]
            assert (said["outputs"][names.index(frame)] == drawn).all()


def test_a_run_is_evaluated_again_with_the_same_scores(ran, rooms, capsys):
    result, out = ran

    assert answer(["evaluate", str(out), "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    scores = {row["name"]: row["scores"] for row in found["rows"]}
    for row in result["rows"]:
        assert scores[row["name"]]["mean_iou"] == pytest.approx(row["test"]["mean_iou"])
        assert scores[row["name"]]["completion_iou"] == pytest.approx(row["test"]["completion_iou"])


def test_a_run_is_scored_on_the_depths_of_the_rooms_models(ran, tmp_path, capsys):
    from xmodal.data.nyu.synthetic import make

    root = make(tmp_path / "cad", format="prepared", train=2, test=2, holes=0.5, cad=True)

    scores = []
    for more in ([], ["--nyu.cad"]):
        words = ["evaluate", str(ran[1]), "nyu", "--nyu.root", str(root), *more, "--out", str(tmp_path / "said.json")]
        assert answer([*words, "--json"]) == 0
        scores.append(json.loads(capsys.readouterr().out)["rows"])

    assert [row["name"] for row in scores[0]] == [row["name"] for row in scores[1]] == ["teacher", "no-KD", "kd kl"]
    for pierced, whole in zip(*scores, strict=True):  # of the same rooms, with half of the depths and with all
        assert pierced["scores"]["cross_entropy"] != whole["scores"]["cross_entropy"]


def test_a_run_that_ended_behind_its_teacher_goes_on(rooms, ran, tmp_path):
    out = tmp_path / "staged"

    first = run(small(rooms, out=out, until="teacher"))
    whole = run(small(rooms, out=out, resume=True))

    assert not first.get("rows") and (out / "seed-0" / "teacher" / "result.json").is_file()
    mine, theirs = ({row["name"]: row["test"] for row in found["rows"]} for found in (whole, ran[0]))
    assert mine == theirs


def test_the_teacher_of_another_run_is_not_trained_again(ran, rooms, tmp_path):
    result, out = ran

    found = run(small(rooms, out=tmp_path / "taken", teacher_checkpoint=out))

    assert found["rows"][0]["test"] == result["rows"][0]["test"]
    assert any("taken from" in note for note in found["notes"])


def test_a_teacher_may_come_from_a_file_of_the_authors(tmp_path):
    network = without_data("ddrnet_depth")
    renamed = {f"module.{name}": tensor for name, tensor in network.module.state_dict().items()}
    torch.save({"state_dict": renamed}, tmp_path / "cp.pth.tar")

    found = earlier_teacher(tmp_path / "cp.pth.tar", "ddrnet_depth", 0)

    weights = found.weights["teacher"]["depth+depth.position"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.module.state_dict().items())
    load_published(network.module, tmp_path / "cp.pth.tar")


def test_teachers_that_are_none_are_refused(ran, tmp_path):
    with pytest.raises(InputError, match="holds no finished teacher palnet"):
        earlier_teacher(ran[1], "palnet", 0)
    file = ran[1] / "seed-0/no-KD/students/depth+depth.position/student.safetensors"
    with pytest.raises(InputError, match="holds a network ddrnet that reads depth.*ddrnet_rgb was expected"):
        earlier_teacher(file, "ddrnet_rgb", 0)


def test_only_scored_voxels_that_are_not_empty_count_for_the_gap():
    target, region = torch.tensor([[0, 1, 2, 255]]), torch.tensor([[1, 0, 2, 2]])

    batch = occupied(Batch({}, {"depth": target}, {}, {}, {"depth": region}))

    assert batch.valid["depth"].tolist() == [[False, False, True, True]]  # the unknown one is left out by its target


def test_colours_alone_may_teach_and_learn(rooms):
    found = run(small(rooms, teacher_network="palnet", student_network="ddrnet_rgb", gap_frames=1))

    assert [row["needs"] for row in found["rows"]][1] == ["rgb", "rgb.position"]
    assert found["rows"][0]["needs"] == ["depth", "depth.position", "tsdf"]
