import shutil

import numpy as np
import pytest
from PIL import Image

from xmodal.cli.main import answer
from xmodal.data.ravdess.check import check, inspect

LISTS = {"train": "spa_dl.csv", "valid": "spa_val.csv", "test": "spa_test.csv"}


def write_root(root, *, header=True, suffix=".jpg", end="\n"):
    """A folder that `prepare` did not write: free names, JPEG, one clip of each emotion in each list."""
    for part in ("aud_features", "vid_features", "data_file"):
        (root / part).mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, name in LISTS.items():
        lines = ["file,picture,emotion"] * header
        for label in range(8):
            clip = f"{split}_{label}"
            np.save(root / "aud_features" / f"{clip}.npy", random.normal(size=(20, 24)).astype(np.float32))
            Image.fromarray(random.integers(0, 256, (10, 12, 3), np.uint8)).save(
                root / "vid_features" / (clip + suffix)
            )
            lines.append(f"{clip}.npy,{clip}{suffix},{label}")
        (root / "data_file" / name).write_text(end.join(lines) + end, newline="")
    return root


@pytest.fixture
def root(tmp_path):
    return write_root(tmp_path / "root")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_complete_folder_has_neither_errors_nor_warnings(root, prepared):
    assert check(root).errors == check(root).warnings == []
    assert check(prepared).errors == check(prepared).warnings == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", [True, False])
def test_a_header_line_is_detected(tmp_path, header, end):
    contents = inspect(write_root(tmp_path / "root", header=header, end=end))

    assert contents.report.errors == [] and contents.headers == dict.fromkeys(LISTS, header)
    assert [len(rows) for rows in contents.rows.values()] == [8, 8, 8]
    assert [row.label for row in contents.rows["train"]] == list(range(8))
    assert (contents.audio, contents.image) == ((20, 24), (10, 12))


def test_the_option_header_overrides_the_detection(tmp_path):
    root = write_root(tmp_path / "root", header=False)

    assert [len(rows) for rows in inspect(root, header="yes").rows.values()] == [7, 7, 7]
    assert len(inspect(root, header="no").rows["train"]) == 8
    errors = inspect(write_root(tmp_path / "other"), header="no").report.errors
    assert any("line 1 has the label 'emotion': 0 to 7 were expected" in error for error in errors)


def test_lists_may_have_blanks_a_byte_order_mark_and_names_without_suffix(root):
    path = root / "data_file" / "spa_dl.csv"
    edit(path, "train_3.npy,train_3.jpg,3", ' "train_3" , train_3 , 3.0 ,more')
    path.write_text("\ufeff" + path.read_text() + "\n\n")

    contents = inspect(root)

    assert contents.report.errors == [] and contents.rows["train"][3].image.name == "train_3.jpg"


def test_all_problems_are_reported_together(root):
    lists = root / "data_file"
    edit(lists / "spa_dl.csv", "train_0.npy,train_0.jpg,0", "train_0.npy,train_0.jpg,8")
    edit(lists / "spa_dl.csv", "train_1.npy,", "../train_1.npy,")
    edit(lists / "spa_dl.csv", "train_2.npy,train_2.jpg,2", "train_2.npy")
    edit(lists / "spa_test.csv", "test_4.npy,", "gone.npy,")
    (lists / "spa_val.csv").unlink()
    (root / "vid_features" / "test_5.jpg").write_bytes(b"words")
    np.save(root / "aud_features" / "test_6.npy", np.zeros((20, 24), np.bool_))
    np.save(root / "aud_features" / "test_7.npy", np.zeros((20, 25), np.float32))

    errors = "\n".join(check(root).errors)

    for part in (
        "spa_dl.csv line 2 has the label '8': 0 to 7",
        "spa_dl.csv line 3 names '../train_1.npy': a file in aud_features, without ..",
        "spa_dl.csv line 4 has 1 cells",
        "spa_test.csv line 6 names aud_features/gone.npy, which is missing",
        "spa_val.csv is missing. Expected: data_file/spa_dl.csv",
        "vid_features/test_5.jpg cannot be read as a picture",
        "aud_features/test_6.npy holds bool numbers",
        "aud_features/test_7.npy has the shape (20, 25), test_0.npy has (20, 24)",
    ):
        assert part in errors, part


def test_only_the_thorough_check_reads_values_and_pixels(root):
    features = np.zeros((20, 24), np.float32)
    features[3, 4] = np.nan
    np.save(root / "aud_features" / "valid_1.npy", features)
    picture = root / "vid_features" / "valid_2.jpg"
    picture.write_bytes(picture.read_bytes()[:-40])

    assert inspect(root).report.errors == []
    errors = check(root).errors
    assert "valid_1.npy holds non-finite values" in errors[0] and "valid_2.jpg" in errors[1] and len(errors) == 2


def test_after_three_problems_of_a_kind_the_rest_is_counted(root):
    for path in (root / "aud_features").glob("train_*"):
        path.unlink()

    errors = check(root).errors

    assert len(errors) == 4 and errors[-1] == "… and 5 more problems in spa_dl.csv."


def test_clips_in_two_splits_are_an_error_and_actors_a_warning(root, prepared, tmp_path):
    edit(root / "data_file" / "spa_val.csv", "valid_0.npy", "train_0.npy")
    shutil.copytree(prepared, tmp_path / "mixed")
    lists = tmp_path / "mixed" / "data_file"
    first, second = ((lists / name).read_text().splitlines() for name in ("spa_val.csv", "spa_test.csv"))
    first[1], second[1] = second[1], first[1]
    (lists / "spa_val.csv").write_text("\n".join(first))
    (lists / "spa_test.csv").write_text("\n".join(second))

    assert "train_0 is in spa_dl.csv and in spa_val.csv" in check(root).errors[0]
    assert "--ravdess.allow-overlap" in check(root).errors[0]
    mixed = check(tmp_path / "mixed")
    assert mixed.errors == [] and "2 of 4 actors are in several splits" in mixed.warnings[0]


def test_missing_emotions_repeated_clips_and_unlisted_files_are_warnings(root):
    lists = root / "data_file"
    edit(lists / "spa_dl.csv", "train_6.npy,train_6.jpg,6\n", "")
    edit(lists / "spa_test.csv", "test_3.npy,test_3.jpg,3", "test_2.npy,test_2.jpg,2")
    (root / ".prepared").mkdir()

    report = check(root)

    warnings = "\n".join(report.warnings)
    assert report.errors == []
    for part in (
        "No clip of spa_dl.csv is disgust.",
        "No clip of spa_test.csv is sad.",
        "spa_test.csv lists some clips several times.",
        "2 files in aud_features are in no list, test_3.npy among them.",
        "ravdess.json is missing",
    ):
        assert part in warnings, part


def test_other_folders_are_ignored_and_recordings_are_to_be_prepared(recordings, tmp_path, capsys):
    (tmp_path / "Actor_01").mkdir()

    assert check(recordings.parent) is None
    assert check(recordings).errors == [] and "data prepare ravdess" in check(recordings).warnings[0]
    assert "no clip with sound and picture" in check(tmp_path).errors[0]
    assert answer(["data", "check", str(tmp_path)]) == 2 and "1 error" in capsys.readouterr().out
