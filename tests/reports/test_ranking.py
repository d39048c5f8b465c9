"""The figure and the table of a ranking."""

import pytest

from xmodal.reports.ranking import ends, ranking_of, ranking_plots, ranking_table

VALUE = [0.0, 1.0, 0.04, 0.3, 0.6, 0.01, 0.02, 0.21]
RANKING = {
    "place": 5,
    "layer": "fc2_relu",
    "distance": "mse",
    "draws": 10,
    "share": 0.25,
    "seeds": [{"seed": 3, "value": VALUE, "note": ""}],
}


def test_the_ends_are_the_lowest_and_the_highest_share():
    assert ends(VALUE, 0.25) == ([0, 5], [4, 1])
    assert ends(VALUE, 0.0) == ([], [])
    assert ends([0.5] * 10, 0.3)[0] == [0, 1, 2]  # 0.3 · 10 is below 3 in floating point


def test_the_drawings_mark_both_ends_and_name_place_and_permutations():
    by_channel, in_order = ranking_plots(RANKING)

    assert by_channel["svg"].count("highest") == 1 and by_channel["svg"].count("lowest") == 1
    assert "place 5" in by_channel["title"] and "10 permutations" in by_channel["caption"]
    assert "Seed 3" in by_channel["caption"] and "25 %" in in_order["caption"]
    assert "channels, least salient first" in in_order["svg"]


def test_a_share_of_nothing_marks_nothing():
    by_channel, in_order = ranking_plots({**RANKING, "share": 0.0})

    assert "highest" not in by_channel["svg"] + in_order["svg"]
    assert ranking_table({**RANKING, "share": 0.0})[1][0][-2:] == ["–", "–"]


def test_several_seeds_have_a_band_and_a_line_each_in_the_table():
    twice = {**RANKING, "draws": "exact", "seeds": [*RANKING["seeds"], {"seed": 4, "value": VALUE[::-1], "note": ""}]}

    header, rows = ranking_table(twice)

    assert len(header) == len(rows[0]) and [row[0] for row in rows] == ["3", "4"]
    assert rows[0][1:] == ["8", "2", "4", "4", "up to 0.010", "from 0.600"]
    assert "from the lowest to the highest" in ranking_plots(twice)[1]["caption"]
    assert "mean over all permutations" in ranking_plots(twice)[0]["caption"]


@pytest.mark.parametrize("content", [None, [1], {"place": 5}, {**RANKING, "seeds": []}])
def test_results_without_a_ranking_have_none(content):
    assert ranking_of({"ranking": content}) is None and ranking_of({}) is None
