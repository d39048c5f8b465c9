"""The commands that train: their settings come from flags and files, and can be replayed."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel

from xmodal.cards import RecipeCard, load
from xmodal.methods import METHODS
from xmodal.recipes import RECIPES, digits_kd

SHORT = "--teacher rows --student fourier --epochs 1 --threads 1"


class SmallSettings(digits_kd.Settings):
    """The demo in a second."""

    epochs: int = 1
    seeds: tuple[int, ...] = (0,)
    shuffled: bool = False


def run_small(settings: SmallSettings, progress=None) -> dict:
    return digits_kd.run(settings, progress=progress)


def test_flags_end_up_in_the_settings(run_folder: Path, read) -> None:
    settings = read(run_folder / "settings.json")["settings"]

    assert settings["teacher"] == ["rows"] and settings["epochs"] == 2
    assert settings["options"]["digits"]["views"] == ["rows", "fourier", "coarse"]
    expected = {"temperature": 2.0, "kd_weight": 0.5, "task_weight": 0.5, "labels": False}
    expected |= {"standardise": False, "kd_warmup": 0, "pixels": "labelled", "reduction": "pixel", "weighting": "alike"}
    assert settings["options"]["kd"] == {**expected, "loss": [], "student_layer": [], "teacher_layer": []}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_flags_under_distill(method: str, call) -> None:
    status, said, _ = call(f"distill digits --method {method} --help")

    flags = load(METHODS[method].settings).model_fields
    assert status == 0 and all(f"-{name.replace('_', '-')}" in said for name in flags)


def test_a_list_may_be_given_word_by_word(call, read) -> None:
    losses = "--loss kl --loss rkd:0.5,pkt"
    line = f"distill digits --teacher rows --student fourier --epochs 1 {losses} --no-shuffled --out two"

    assert call(line)[0] == 0
    assert read(Path("two/settings.json"))["settings"]["options"]["kd"]["loss"] == ["kl", "rkd:0.5", "pkt"]


def test_replayed_settings_give_an_equal_result(run_folder: Path, call, read) -> None:
    status, said, _ = call("distill --out again --json --settings", run_folder / "settings.json")

    assert status == 0
    result = json.loads(said)  # nothing but the document, although training reports its progress
    assert result["folder"] == "again"
    assert read(Path("again/settings.json")) == read(run_folder / "settings.json")
    first, again = read(run_folder / "result.json"), read(Path("again/result.json"))
    # the time of a sample is measured, and the command names the folder
    for key in ("ms_median", "ms_p95", "command"):
        assert first["ship"].pop(key) and again["ship"].pop(key)
    assert again == first


def test_second_run_in_a_folder(run_folder: Path, call) -> None:
    line = f"distill --settings {run_folder / 'settings.json'} --out {run_folder}"
    before = (run_folder / "seed-0/kd/students/fourier/student.safetensors").stat().st_mtime_ns

    refused = call(line)
    resumed = call(f"{line} --resume")
    changed = call(f"{line} --resume --epochs 5 --digits.noise-seed 3")

    assert refused[0] == 2 and "--resume" in refused[2]
    assert resumed[0] == 0 and str(run_folder / "report.html") in resumed[1]
    assert (run_folder / "seed-0/kd/students/fourier/student.safetensors").stat().st_mtime_ns == before
    assert changed[0] == 2 and "settings.epochs was 2 and is now 5" in changed[2]
    assert "settings.options.digits.noise_seed was 0 and is now 3" in changed[2]


def test_compare_with_named_settings(call, read) -> None:
    line = "compare digits --methods supervised,kd --seeds 1-2 --kd.temperature 3 --digits.coarse-noise=0.3 --out c"

    status, said, complained = call(f"{line} {SHORT} --digits.views rows,fourier --no-shuffled")

    assert status == 0
    assert "no-KD" in said and "Run folder: c" in said and "epoch 1/1" in complained
    saved = read(Path("c/settings.json"))["settings"]
    assert saved["options"]["kd"]["temperature"] == 3 and saved["options"]["digits"]["coarse_noise"] == 0.3
    assert saved["seeds"] == [1, 2]


def test_settings_of_another_recipe_are_refused(run_folder: Path, call) -> None:
    status, _, complained = call("compare --settings", run_folder / "settings.json")
    fit_status, _, fit_complained = call("distill --settings", run_folder / "seed-0/kd/settings.json")

    assert (status, fit_status) == (2, 2)
    assert "holds settings of the recipe 'distill', expected those of 'compare'" in complained
    assert "holds settings of a single fit" in fit_complained


def test_data_after_flags_with_and_without_values(call) -> None:
    status, _, complained = call("distill --digits.no-paired --no-labels --seed 3 digits --student forier")

    assert status == 2
    assert "Did you mean 'fourier'?" in complained


def test_reproduce_says_which_figure_is_off(call, monkeypatch: pytest.MonkeyPatch) -> None:
    card = RecipeCard(
        name="small",
        title="a small one",
        path=f"{__name__}:run_small",
        settings=f"{__name__}:SmallSettings",
        references="xmodal.recipes:references/digits_kd.json",
    )
    monkeypatch.setitem(RECIPES._cards, "small", card)
    figure = {"key": "teacher.weighted_f1", "what": "teacher", "paper": 50.0, "tolerance": 50.0, "source": "chosen"}
    Path("wide.json").write_text(json.dumps({"schema": 1, "figures": [figure]}))

    off = call("reproduce small --json")
    shutil.copytree("runs/reproduce/small", "copy/small")
    within = call("reproduce small --references wide.json --resume --out copy")

    found = json.loads(off[1])
    assert off[0] == 1 and found["ok"] is False and len(found["recipes"]["small"]["references"]) == 5
    assert within[0] == 0 and "Every figure is within its tolerance." in within[1]


def run_widths(settings: SmallSettings, progress=None) -> dict:
    result = run_small(settings, progress=progress)
    return {**result, "figures": {"seeds": float(len(settings.seeds))}}


def two_settings() -> dict[str, SmallSettings]:
    return {"one": SmallSettings(), "two": SmallSettings(seeds=(0, 1))}


def test_reproduce_runs_all_published_settings_of_a_recipe(call, monkeypatch: pytest.MonkeyPatch) -> None:
    card = RecipeCard(
        name="widths",
        title="a small one, twice",
        path=f"{__name__}:run_widths",
        settings=f"{__name__}:SmallSettings",
        published=f"{__name__}:two_settings",
        references="xmodal.recipes:references/digits_kd.json",
    )
    monkeypatch.setitem(RECIPES._cards, "widths", card)
    figure = {"what": "seeds", "paper": 2.0, "tolerance": 0.5, "source": "chosen"}
    figures = [{"key": f"{name}/seeds", **figure} for name in ("one", "two")]
    Path("seeds.json").write_text(json.dumps({"schema": 1, "figures": figures}))

    status, said, _ = call("reproduce widths --references seeds.json --json")

    found = json.loads(said)["recipes"]["widths"]
    assert status == 1 and [(row["ours"], row["ok"]) for row in found["references"]] == [(1.0, False), (2.0, True)]
    assert found["folders"] == ["runs/reproduce/widths/one", "runs/reproduce/widths/two"]
    assert all((Path(folder) / "report.html").is_file() for folder in found["folders"])


class NothingSettings(BaseModel):
    """Settings of a recipe that trains nothing."""

    out: Path = Path("runs/nothing")
    resume: bool = False


def run_nothing(settings: NothingSettings, progress=None) -> dict:
    content = (settings.out / "runs.txt").read_text() if settings.resume else ""
    settings.out.mkdir(parents=True, exist_ok=settings.resume)
    (settings.out / "runs.txt").write_text(f"{content}run\n")
    return {"figures": {"seeds": 1.0}, "folder": str(settings.out)}


def test_reproduce_takes_the_next_free_name_and_continues_the_last_run(call, monkeypatch: pytest.MonkeyPatch) -> None:
    card = RecipeCard(
        name="nothing",
        title="trains nothing",
        path=f"{__name__}:run_nothing",
        settings=f"{__name__}:NothingSettings",
        references="xmodal.recipes:references/digits_kd.json",
    )
    monkeypatch.setitem(RECIPES._cards, "nothing", card)
    figure = {"key": "seeds", "what": "seeds", "paper": 1.0, "tolerance": 0.5, "source": "chosen"}
    Path("one.json").write_text(json.dumps({"schema": 1, "figures": [figure]}))
    words = "reproduce nothing --references one.json --json"

    # --resume of nothing begins
    calls = [call(words), call(words), call(f"{words} --resume"), call(words)]

    folders = [json.loads(said)["recipes"]["nothing"]["folders"][0] for _, said, _ in calls]
    names = [str(Path(folder).relative_to("runs/reproduce")).rstrip("/") for folder in folders]
    assert [status for status, *_ in calls] == [0] * 4
    assert [name.split("/")[0] for name in names] == ["nothing", "nothing-2", "nothing-2", "nothing-3"]
    lines = [len((Path(folder) / "runs.txt").read_text().splitlines()) for folder in folders]
    assert lines == [1, 2, 2, 1]


def test_a_sweep_runs_from_flags_and_its_page_can_be_drawn_again(call, read) -> None:
    line = "run gauss-removal --dims 10:5 --seeds 42-43 --epochs 5 --mode gt,random --as-published --out sweep"

    status, said, _ = call(line)

    settings = read(Path("sweep/settings.json"))["settings"]
    assert status == 0 and "MG-KD - KD" in said and "Random channels stay:" in said
    assert (settings["permutations"], settings["swapped"], settings["mode"]) == (100, True, ["gt", "random"])
    assert call("report sweep --out again.html")[0] == 0
    assert Path("again.html").read_bytes() == Path("sweep/report.html").read_bytes()
    assert call("run gauss-removal --settings sweep/settings.json --out repeated")[0] == 0
    assert read(Path("repeated/result.json"))["rows"] == read(Path("sweep/result.json"))["rows"]
    refused = call("export sweep --format torch --out student")
    assert refused[0] == 2 and "is a sweep" in refused[2]
