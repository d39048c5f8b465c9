"""From raw files of made rooms to a table, and what the table says: slow, and it prints what it found."""

import statistics

import pytest

from xmodal.cli.main import answer
from xmodal.recipes.nyu_ssc import run
from xmodal.recipes.nyu_ssc_settings import Settings


@pytest.mark.slow
def test_from_raw_rooms_to_a_table_colours_tell_classes_that_depth_does_not(tmp_path, capsys):
    raw, root = str(tmp_path / "raw"), str(tmp_path / "root")
    assert answer(["data", "make", "nyu", raw, "--seed", "1"]) == 0
    assert answer(["data", "prepare", "nyu", raw, root]) == 0

    found = run(Settings(preset="small", options={"nyu": {"root": root}}, out=tmp_path / "run"))

    names = list(dict.fromkeys(row["name"] for row in found["rows"]))
    scores = {
        key: {name: [row["test"][key] for row in found["rows"] if row["name"] == name] for name in names}
        for key in ("completion_iou", "mean_iou")
    }
    with capsys.disabled():
        for key, of_names in scores.items():
            for name, values in of_names.items():
                each = ", ".join(f"{100 * value:.1f}" for value in values)
                print(f"\n{key} {name}: {100 * statistics.fmean(values):.1f} ({each})", end="")
    classes = scores["mean_iou"]
    assert all(high > low + 0.02 for high, low in zip(classes["teacher"], classes["no-KD"], strict=True))
    for of_names in scores.values():  # in the mean over the seeds
        student, control = (statistics.fmean(of_names[name]) for name in ("kd kl", "no-KD"))
        assert student > control
    assert set(names) == {"teacher", "no-KD", "kd kl", "kd kl (shuffled teacher)", "kd kl (untrained teacher)"}
