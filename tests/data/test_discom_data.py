"""Demo data of DisCoM-KD: what the files hold, how splits are drawn, what of the mixture is shared."""

import numpy as np
import pytest

from xmodal.data import open_data
from xmodal.data.digits import make_views, read_pixels
from xmodal.data.discom import VARIANTS, draw_split, make, make_mixture
from xmodal.data.own.check import check_folder
from xmodal.errors import InputError

SHAPES = {
    "digits": {"ROWS": (64,), "FOU": (40,)},
    "pix-profile": {"PIX": (1, 8, 8), "PROFILE": (16,)},
    "pix-coarse": {"PIX": (1, 8, 8), "COARSE": (1, 4, 4)},
    "pix-noisy": {"PIX": (1, 8, 8), "NOISY": (1, 8, 8)},
    "halves": {"TOP": (1, 4, 8), "BOTTOM": (1, 4, 8)},
    "synthetic": {"A": (40,), "B": (40,)},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_a_folder_without_faults(variant, tmp_path):
    root = make(tmp_path / "written", variant=variant, splits=2)

    report = check_folder(root)
    data = open_data(str(root))

    assert report.errors == [] and not [said for said in report.warnings if "index" in said or "idx" in said]
    assert {name: info.shape for name, info in data.info.inputs.items()} == SHAPES[variant]
    assert data.info.normalisation == {}  # the files are used as they are
    names = {"labels", *(f"{split}_idx{n}" for split in ("train", "valid", "test") for n in ("", "_0", "_1"))}
    assert names <= {path.stem for path in root.iterdir()}


def test_a_split_takes_whole_rows_of_each_class():
    """29 rows of class 0 and 11 of class 1: floor(0.7 n) train, up to floor(0.8 n) validate."""
    labels = np.repeat([0, 1], [29, 11])

    rows = draw_split(labels, 0.7, 2)

    counts = {split: np.bincount(labels[found]).tolist() for split, found in rows.items()}
    assert counts == {"train": [20, 7], "valid": [3, 1], "test": [6, 3]}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(40))


def test_a_split_depends_on_its_number_alone():
    labels = read_pixels()[1]

    first, again, other = (draw_split(labels, 0.1, number)["train"] for number in (1, 1, 2))

    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_numbered_splits_are_chosen_by_their_number(tmp_path):
    root = make(tmp_path / "written", splits=3, seed=2)

    data = [open_data(str(root), options={"split": number}) for number in (0, 2)]

    for number, opened in zip((0, 2), data, strict=True):
        assert np.array_equal(opened.train.numbers["ROWS"], np.load(root / f"train_idx_{number}.npy"))
    assert np.array_equal(open_data(str(root)).train.numbers["FOU"], data[1].train.numbers["FOU"])


def test_opened_by_name_it_is_the_variant_digits_and_the_seed_is_the_split(tmp_path):
    root = make(tmp_path / "written")
    named, filed = open_data("discom", seed=4), open_data(str(root), options={"split": 4})

    for split in ("train", "valid", "test"):
        for name in ("ROWS", "FOU"):
            assert np.array_equal(np.sort(named.split(split).numbers[name]), filed.split(split).numbers[name])
    assert np.array_equal(named.train.columns["FOU"][:5], filed.train.columns["FOU"][np.arange(5)])
    assert named.info.rows["train"]["ROWS"] == sum(n // 10 for n in np.bincount(read_pixels()[1]))


def test_the_fourier_view_does_not_see_a_half_turn():
    pixels = read_pixels()[0][:20]

    upright, turned = (make_views(some, range(20), ("fourier",))["fourier"] for some in (pixels, pixels[:, ::-1, ::-1]))

    np.testing.assert_allclose(upright, turned, atol=1e-5)


def test_the_mixture_is_computed_from_its_latents():
    columns, labels, truth = make_mixture(0)

    assert {name: column.shape for name, column in columns.items()} == {"A": (3000, 40), "B": (3000, 40)}
    assert sorted(np.unique(labels)) == list(range(6))
    widths = {name: latents.shape[1] for name, latents in truth.items()}
    assert widths == {"shared": 8, "A_specific": 4, "A_irrelevant": 8, "B_specific": 2, "B_irrelevant": 24}
    for name, within in (("shared", 1.0), ("A_specific", 1.0), ("B_irrelevant", 1.5)):
        deviation = np.mean([truth[name][labels == value].std(axis=0) for value in range(6)])
        assert deviation == pytest.approx(within, abs=0.05)
    noise = {name: _residual(columns[name], truth, name) for name in columns}
    assert noise["A"] < 0.75 * noise["B"]  # 0.09 and 0.3 beside what a linear fit of tanh leaves


def _residual(seen, truth, name):
    latents = np.hstack([truth["shared"], truth[f"{name}_specific"], truth[f"{name}_irrelevant"]])
    fit, *_ = np.linalg.lstsq(latents, seen, rcond=None)
    return float((seen - latents @ fit).std())


def test_what_can_not_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(InputError, match="Did you mean 'digits'"):
        make(tmp_path / "x", variant="digit")
    with pytest.raises(InputError, match="train_share is 0.95"):
        make(tmp_path / "x", train_share=0.95)
    with pytest.raises(InputError, match="is there already"):
        make(tmp_path)
    with pytest.raises(InputError, match="task multiclass"):
        open_data("discom", task="regression")
