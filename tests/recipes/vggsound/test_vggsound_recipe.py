"""The recipe on VGGSound, on made clips and with networks of a few channels."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodal.cli.main import answer
from xmodal.cli.recipe_flags import read_settings
from xmodal.data import open_data
from xmodal.data.loader import in_order
from xmodal.errors import InputError
from xmodal.metrics.batch_accuracy import batch_accuracy
from xmodal.models.student_file import load_student
from xmodal.recipes.vggsound import experiment
from xmodal.recipes.vggsound.settings import PUBLISHED
from xmodal.study.ranking_file import read_ranking

PAGE = Path(__file__).parents[3] / "docs/recipes/vggsound.md"
WIDTH, EPOCHS = 8, 2
FAST = {
    "preset": "small",
    "epochs": EPOCHS,
    "teacher_width": WIDTH,
    "student_width": WIDTH,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "ratio": (0.5,),
    "accelerator": "cpu",
}
STORED = ("teacher", "no-KD", "least-0.5", "least-0.5-shuffled-teacher", "most-0.5", "random-0.5", "none")


def settings(root, **changes):
    """Of the fast run; ``data`` are options of the data."""
    own = {"root": str(root), "frames": 2, "size": 16, "window": 128, "hop": 128, **changes.pop("data", {})}
    return experiment.Settings(**{**FAST, "options": {"vggsound": own}, **changes})


def run(root, **changes):
    return experiment.run(settings(root, **changes))


@pytest.fixture(scope="module")
def teacher_outputs(vggsound_root, tmp_path_factory):
    """A whole run with all kinds of students and one seed; not to be written to."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("vggsound") / "run"
    return run(vggsound_root, out=out), out


@pytest.fixture
def copied(teacher_outputs, tmp_path):
    shutil.copytree(teacher_outputs[1], tmp_path / "run")
    return tmp_path / "run"


def trained_files(out, seed=0):
    """What a training or a ranking writes → its bytes and the moment they were written."""
    found = {}
    for path in sorted((out / f"seed-{seed}").rglob("*")):
        if path.name in ("history.jsonl", "last.safetensors", "saliency.npz") or path.parent.name == "best":
            found[str(path.relative_to(out))] = (path.read_bytes(), path.stat().st_mtime_ns)
    return found


def weights(out):
    return {name: content for name, (content, _) in trained_files(out).items() if name.endswith(".safetensors")}


def findings(out, name, seed=0):
    return json.loads((out / f"seed-{seed}" / name / "result.json").read_text())["method"]["channels"]


def same(result):
    return {key: result[key] for key in ("rows", "summary", "stages", "tables", "expectations", "ranking", "notes")}


# ---- what a run holds


def test_the_table_has_teacher_control_students_and_the_shuffled_control(teacher_outputs):
    result, out = teacher_outputs

    assert [(entry["name"], entry["role"], entry["n"]) for entry in result["summary"]] == [
        ("teacher", "teacher", 1),
        ("no-KD", "control", 1),
        ("least 0.5", "method", 1),
        ("least 0.5 (shuffled teacher)", "shuffled", 1),
        ("most 0.5", "method", 1),
        ("random 0.5", "method", 1),
        ("none", "method", 1),
    ]
    assert tuple(path.name for path in sorted((out / "seed-0").iterdir()) if path.is_dir()) == tuple(sorted(STORED))


def test_the_page_has_stages_curves_students_and_the_tested_expectation(teacher_outputs):
    result, out = teacher_outputs
    page = (out / "report.html").read_text()

    assert [table["title"] for table in result["tables"]] == ["Stages", "Teachers without the removed channels"]
    rows = {row[0]: row for row in result["tables"][0]["rows"]}
    assert rows["teacher"][1] == "vggsound_audio" and rows["no-KD"][1] == rows["most 0.5"][1] == "video_resnet18"
    assert rows["no-KD"][2] == rows["none"][2] and 1 <= int(rows["none"][3]) <= EPOCHS
    for text in (
        "Saliency by channel, place embedding",
        "The same, sorted",
        "The authors expect (share 0.5)",
        "Stages",
    ):
        assert text in page
    (expected,) = result["expectations"]
    assert [test["second"] for test in expected["tests"]] == ["most 0.5", "random 0.5", "none"]
    scores = {row["name"]: row["test"]["accuracy"] for row in result["rows"]}
    assert expected["tests"][0]["difference"] == pytest.approx(scores["least 0.5"] - scores["most 0.5"])


def test_accuracies_count_clips(teacher_outputs, vggsound_root):
    result, out = teacher_outputs

    for row in result["rows"]:
        with np.load(out / row["folder"] / "predictions" / f"{row['student']}.npz") as said:
            assert row["test"]["accuracy"] == pytest.approx((said["outputs"].argmax(1) == said["target"]).mean())
            assert len(said["target"]) == 8


def test_the_epoch_is_the_best_on_the_validation_part_of_train(teacher_outputs):
    result, out = teacher_outputs

    for row in result["rows"]:
        lines = (out / row["folder"] / "history.jsonl").read_text().splitlines()
        scores = [json.loads(line)["valid"][row["student"]]["accuracy"] for line in lines]
        assert len(scores) == EPOCHS and row["best_epoch"] == int(np.argmax(scores))


def answers(out, name, modality, batches):
    """Outputs, pooled channels and the head's weights of a stored network, in eval mode."""
    student, _ = load_student(out / "seed-0" / name / "students" / modality / "student.safetensors")
    network = student.module.eval()
    kept = []
    network.embedding.register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.no_grad():
        said = torch.cat([network(batch.inputs) for batch in batches])
    return said.double(), torch.cat(kept).double(), network.head.weight.detach().double()


def test_saliency_is_the_exact_mean_over_all_exchanges_of_paired_clips(teacher_outputs, vggsound_root):
    """E[D_c] = 1 / (N² K) Σ_k Σ_n Σ_m |R_nk + w_ck (Z_mc - Z_nc)|, by loops, on the two networks of the stages."""
    _, out = teacher_outputs
    data = open_data("vggsound", options=settings(vggsound_root).read())
    batches = list(in_order(data.train, batch_size=3))
    said, channels, head = answers(out, "teacher", "audio", batches)
    residual = said - answers(out, "no-KD", "video", batches)[0]
    rows, classes = residual.shape

    expected = np.zeros(WIDTH)
    for channel in range(WIDTH):
        for n in range(rows):
            for m in range(rows):
                moved = residual[n] + head[:, channel] * (channels[m, channel] - channels[n, channel])
                expected[channel] += float(moved.abs().sum()) / (rows**2 * classes)

    name, found = read_ranking(out / "seed-0" / "saliency.npz")
    assert found.exact and found.distance == "l1" and "embedding" in name and rows == 8
    np.testing.assert_allclose(found.raw, expected, rtol=1e-5)
    assert found.value.min() == 0 and found.value.max() == 1


def test_the_lines_of_the_page_find_what_the_run_found(teacher_outputs, vggsound_root):
    _, out = teacher_outputs
    (code,) = re.findall(r"^```python\n([^`]*measure_saliency.*?)^```", PAGE.read_text(), flags=re.M | re.S)
    for said, here in (
        ('"runs/full/seed-0"', repr(str(out / "seed-0"))),
        ('{"root": "my_vggsound"}', repr(settings(vggsound_root).read())),
    ):
        assert said in code
        code = code.replace(said, here)

    exec(compile(code, "vggsound.md", "exec"), names := {})

    _, stored = read_ranking(out / "seed-0" / "saliency.npz")
    np.testing.assert_allclose(names["saliency"].raw, stored.raw, rtol=1e-5)
    assert names["keep"].sum() == WIDTH // 2


def test_students_hear_the_teacher_without_the_channels_that_go(teacher_outputs):
    result, out = teacher_outputs
    saliency = np.array(result["ranking"]["seeds"][0]["value"])

    keep = {name: np.array(findings(out, name)["keep"]) for name in STORED[2:]}

    assert keep["none"].all() and [keep[name].sum() for name in STORED[2:6]] == [4] * 4
    assert saliency[keep["least-0.5"]].min() >= saliency[~keep["least-0.5"]].max()
    assert saliency[keep["most-0.5"]].max() <= saliency[~keep["most-0.5"]].min()
    assert not (keep["least-0.5"] == keep["most-0.5"]).any() and len(set(saliency)) == WIDTH
    assert (keep["least-0.5"] == keep["least-0.5-shuffled-teacher"]).all()
    assert findings(out, "random-0.5")["removed"] == "random"


# ---- stages


def test_other_students_and_seeds_join_in_the_same_folder_and_nothing_is_trained_again(
    teacher_outputs, vggsound_root, copied
):
    before = trained_files(copied)

    result = run(vggsound_root, out=copied, remove="random,index", seeds="2", shuffled=False)

    after = trained_files(copied)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[1] for name in after.keys() - before.keys()} == {"index-0.5"}
    names = ["teacher", "no-KD", "random 0.5", "index 0.5"]
    assert [(entry["name"], entry["n"]) for entry in result["summary"]] == [(name, 2) for name in names]
    old = [row for row in teacher_outputs[0]["rows"] if row["name"] in names]
    assert [row for row in result["rows"] if row["seed"] == 0 and row["name"] != "index 0.5"] == old
    assert findings(copied, "index-0.5")["keep"] == [True] * 4 + [False] * 4
    assert json.loads((copied / "settings.json").read_text())["settings"]["remove"] == ["random", "index"]
    # and every seed has networks, a ranking and random channels of its own
    first, second = (one["value"] for one in result["ranking"]["seeds"])
    assert first == teacher_outputs[0]["ranking"]["seeds"][0]["value"] and first != second
    assert findings(copied, "random-0.5", 0)["keep"] != findings(copied, "random-0.5", 1)["keep"]


def test_every_share_has_students_of_its_own_and_an_expectation():
    asked = experiment.Settings(remove="least,none,most", ratio="0.25,0.5")
    rows = [
        {"name": name, "role": "method", "seed": seed, "test": {"accuracy": 0.1 * place + 0.01 * seed * place}}
        for place, name in enumerate(asked.students())
        for seed in (0, 1)
    ]

    found = experiment.expectations({"rows": rows, "metric": "accuracy", "direction": "max"}, asked)

    assert list(asked.students()) == ["least 0.25", "least 0.5", "none", "most 0.25", "most 0.5"]
    assert [(each["best"], each["over"]) for each in found] == [
        ("least 0.25", ["most 0.25", "none"]),
        ("least 0.5", ["most 0.5", "none"]),
    ]
    assert found[1]["tests"][0]["difference"] == pytest.approx(-0.315)


def test_stage_by_stage_is_an_unbroken_run_bit_by_bit(teacher_outputs, vggsound_root, tmp_path):
    result, out = teacher_outputs
    there = {
        "teacher": {"teacher"},
        "video": {"teacher", "no-KD"},
        "saliency": {"teacher", "no-KD", "saliency.npz"},
    }

    for stage, names in there.items():
        found = run(vggsound_root, out=tmp_path / "run", until=stage)
        assert found["rows"] == [] and ("ranking" in found) == (stage == "saliency")
        assert {path.name for path in (tmp_path / "run" / "seed-0").iterdir()} == names
        page = (tmp_path / "run" / "report.html").read_text()
        assert f"This run ends after the stage {stage}" in page and "test clips are not read" in page
    whole = run(vggsound_root, out=tmp_path / "run", resume=True, remove="most,none", shuffled=False)

    known = {row["name"]: row for row in result["rows"]}
    assert whole["rows"] == [known[name] for name in ("teacher", "no-KD", "most 0.5", "none")]
    assert whole["ranking"] == result["ranking"]
    broken, unbroken = weights(tmp_path / "run"), weights(out)
    assert len(broken) == 8 and broken == {name: unbroken[name] for name in broken}


def test_a_resumed_run_ends_with_the_same_result(teacher_outputs, vggsound_root, copied):
    (copied / "result.json").unlink()
    (copied / "seed-0" / "saliency.npz").unlink()
    shutil.rmtree(copied / "seed-0" / "no-KD")
    shutil.rmtree(copied / "seed-0" / "most-0.5")

    again = run(vggsound_root, out=copied, resume=True)

    assert same(again) == same(teacher_outputs[0]) and weights(copied) == weights(teacher_outputs[1])


def test_the_test_clips_are_read_when_all_is_trained(vggsound_root, tmp_path):
    """The test clips are no clips: whoever reads one is told so."""
    root = tmp_path / "root"
    shutil.copytree(vggsound_root, root, ignore=shutil.ignore_patterns("raw", ".prepared"))
    for path in [*root.glob("test/*/*.wav"), *root.glob("test/*/*.jpg")]:
        path.write_bytes(b"nothing")

    with pytest.raises(InputError, match=r"\.(wav|jpg)"):
        run(root, out=tmp_path / "run", shuffled=False, remove="least,none")

    done = {path.parent.name for path in (tmp_path / "run" / "seed-0").glob("*/result.json")}
    assert done == {"teacher", "no-KD", "least-0.5", "none"}


# ---- controls and quirks


def test_the_shuffled_control_needs_sounds_that_stay_as_they_are_not_videos(teacher_outputs, vggsound_root, tmp_path):
    data = open_data("vggsound", options=settings(vggsound_root).read())
    assert data.train.changing == {"video"}  # and yet there is a control
    assert "shuffled" in {row["role"] for row in teacher_outputs[0]["rows"]}

    result = run(vggsound_root, out=tmp_path / "run", augment="audio.noise:0.1", remove="none", epochs=1)

    assert "shuffled" not in {row["role"] for row in result["rows"]}
    assert any("the teacher reads augmented samples" in note for note in result["notes"])


def test_as_published_is_a_set_of_flags():
    whole = experiment.Settings(as_published=True, options={"vggsound": {"root": "x"}})

    assert {name: getattr(whole, name) for name in PUBLISHED} == PUBLISHED
    assert whole.read() == {"root": "x", "as_published": True}
    assert list(whole.students()) == ["index 0.5"]
    one_by_one = experiment.Settings(**PUBLISHED)
    assert one_by_one.described() == {**whole.described(), "as_published": False, "options": {}}
    for words in ("--as-published --fill mean", "--preset small --as-published --fill=mean"):
        ours, _ = read_settings("vggsound", words.split(), prog="xmodal run vggsound")
        assert (ours.fill, ours.ratio, ours.keep, ours.permutations) == ("mean", (0.5,), "last", 100)


def test_the_defaults_are_the_published_training():
    found = experiment.Settings().described()

    training = ("optimizer", "learning_rate", "weight_decay", "schedule", "schedule_every", "schedule_factor")
    assert [found[name] for name in training] == ["adamw", 1e-3, 1e-5, "step", 25, 0.1]
    assert (found["epochs"], found["batch_size"], found["loss"], found["temperature"]) == (50, 32, ["kl:1"], 1.0)
    assert (found["keep"], found["remove"], found["ratio"]) == ("auto", ["least", "most", "random", "none"], [0.5])
    encoders = experiment.Settings().plan().network("teacher")["encoder"]
    assert encoders == {"audio": "vggsound_audio", "video": "vggsound_video"}
    plan = experiment.Settings(student_encoder="video_resnet50").plan()
    assert plan.network("student")["encoder"] == "video_resnet50"


def test_a_published_run_prints_and_writes_what_the_authors_code_does(vggsound_root, tmp_path):
    result = run(vggsound_root, out=tmp_path / "run", as_published=True, within=4, permutations=3)

    folder = tmp_path / "run" / "seed-0"
    assert findings(tmp_path / "run", "index-0.5")["keep"] == [True] * 4 + [False] * 4
    _, found = read_ranking(folder / "saliency.npz")
    assert found.draws.shape == (3, WIDTH) and found.population == "batch"
    assert np.load(folder / "audio_permute.npy").tolist() == (3 * found.raw).tolist()  # 12 clips: none is kept back
    for row in result["rows"]:
        assert row["best_epoch"] == EPOCHS - 1
        with np.load(tmp_path / "run" / row["folder"] / "predictions" / f"{row['student']}.npz") as said:
            outputs, target = torch.from_numpy(said["outputs"]), torch.from_numpy(said["target"])
        divide = "batches" if row["name"] == "teacher" else "rows"
        assert row["printed"] == batch_accuracy(outputs, target, batch_size=2, divide=divide)
    table = result["tables"][-1]
    assert table["title"] == "Accuracies as the authors' test loops print them" and len(table["rows"]) == 3
    assert any("test clips choose the epoch" in note for note in result["notes"])


# ---- what is refused


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--until student", "Did you mean 'students'"),
        ("--remove leest", "Did you mean 'least'"),
        ("--ratio 1", "ratio 1: expected a share of the channels above 0 and below 1"),
        ("--ratio 0.5,1.5", "ratio 1.5: expected a share"),
        ("--ratio half", "shares 'half': expected numbers such as 0.5"),
        ("--teacher sound", "expected audio for one of them and video for the other"),
        ("--preset smal", "Did you mean 'small'"),
        ("--student-encoder video_resnet19", "Did you mean 'video_resnet18'"),
        ("--methods kd", "no option --methods"),
    ],
)
def test_wrong_flags_are_sentences(words, sentence):
    with pytest.raises(InputError) as caught:
        read_settings("vggsound", words.split(), prog="xmodal run vggsound")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": ("kll",)}, "kll"),
        ({"student_encoder": "resnet18"}, "resnet18"),
        ({"options": {}}, "--vggsound.root DIR"),
    ],
)
def test_what_can_not_be_trained_leaves_no_folder(changes, sentence, vggsound_root, tmp_path):
    with pytest.raises(InputError, match=sentence):
        run(vggsound_root, **{**changes, "out": tmp_path / "run"})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 3}, "settings.epochs was 2 and is now 3"),
        ({"fill": "zero"}, "settings.fill was 'mean' and is now 'zero'"),
        ({"data": {"frames": 1}}, "settings.options.vggsound.frames was 2 and is now 1"),
    ],
)
def test_other_stages_are_not_mixed_into_a_folder(changes, sentence, vggsound_root, teacher_outputs):
    with pytest.raises(InputError, match=sentence):
        run(vggsound_root, out=teacher_outputs[1], remove="least", **changes)


def test_a_folder_that_is_no_run_of_this_recipe_is_not_touched(vggsound_root, tmp_path, copied):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "settings.json").write_text('{"schema": 1, "recipe": "compare", "settings": {}}')
    with pytest.raises(InputError, match="is not empty"):
        run(vggsound_root, out=tmp_path / "other")

    (copied / "seed-0" / "saliency.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"saliency\.npz is missing or damaged .* which ranks the\s+channels again"):
        run(vggsound_root, out=copied)


def test_the_command_runs_and_says_where_the_page_is(vggsound_root, tmp_path, capsys):
    data = f"--vggsound.root {vggsound_root} --vggsound.frames 2 --vggsound.size 16 --vggsound.window 128"
    fast = "--preset small --epochs 1 --teacher-width 8 --student-width 8 --batch-size 8 --accelerator cpu"

    status = answer(f"run vggsound {data} --vggsound.hop 128 {fast} --until teacher --out {tmp_path / 'run'}".split())

    said = capsys.readouterr().out
    assert status == 0 and "Stages:" in said and "teacher  vggsound_audio" in said
    assert f"Report: {tmp_path / 'run' / 'report.html'}" in said
