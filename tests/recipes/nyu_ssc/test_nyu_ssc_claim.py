"""From raw files of made rooms to a table, and what the table says; it prints the scores."""

import statistics

import pytest

from xmodal.cli.main import answer
from xmodal.recipes.nyu_ssc.experiment import run
from xmodal.recipes.nyu_ssc.settings import Settings


@pytest.mark.claim
@pytest.mark.timeout(7200)
def test_from_raw_rooms_to_a_table_a_student_of_depth_learns_from_colours(tmp_path, capsys):
    raw, root = str(tmp_path / "raw"), str(tmp_path / "root")
    assert answer(["data", "make", "nyu", raw, "--seed", "6", "--test", "32"]) == 0
    assert answer(["data", "prepare", "nyu", raw, root]) == 0

    found = run(Settings(preset="small", seeds=(30, 31, 32), options={"nyu": {"root": root}}, out=tmp_path / "run"))

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
    for of_names in scores.values():
        means = {name: statistics.fmean(values) for name, values in of_names.items()}
        assert means["kd kl"] > means["no-KD"] + 0.01
        assert max(means["kd kl (shuffled teacher)"], means["kd kl (untrained teacher)"]) < means["no-KD"]
    assert set(names) == {"teacher", "no-KD", "kd kl", "kd kl (shuffled teacher)", "kd kl (untrained teacher)"}
