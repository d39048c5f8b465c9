from pathlib import Path

import pytest

from xmodal.data.vggsound.lists import (
    Clip,
    choose_classes,
    find_lists,
    match_files,
    of_classes,
    parse,
    read_lists,
    refuse_alike,
    token_of,
)
from xmodal.errors import InputError

# Lines of the published lists (Chen et al., VGGSound, CC BY 4.0).
TEST = """glLQrEijrKg_000300.mp4,playing hammond organ
0_8-g2rof7E_000049.mp4,"heart sounds, heartbeat"
LDoXsip0BEQ_000177.mp4,parrot talking
"""
STAT = """ambulance siren,1050,vehicle
basketball bounce,1050,sports
"bird chirping, tweeting",1050,animals"""
FOUR = """---g-f_I2yQ,1,people marching,test
0_8-g2rof7E,49,"heart sounds, heartbeat",train
LDoXsip0BEQ,177,parrot talking,train
"""


def written(folder, **texts):
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def labelled(*labels, split="train"):
    return [Clip(f"video{number:06d}", number, label, split) for number, label in enumerate(labels)]


def test_a_line_of_four_cells_contains_the_split(tmp_path):
    listing = read_lists(find_lists(written(tmp_path, vggsound=FOUR)))

    assert listing.refused == []
    assert listing.clips == [
        Clip("---g-f_I2yQ", 1, "people marching", "test"),
        Clip("0_8-g2rof7E", 49, "heart sounds, heartbeat", "train"),
        Clip("LDoXsip0BEQ", 177, "parrot talking", "train"),
    ]
    assert [clip.stem for clip in listing.clips] == ["---g-f_I2yQ_000001", "0_8-g2rof7E_000049", "LDoXsip0BEQ_000177"]


def test_a_line_of_two_cells_takes_the_split_from_the_name_of_its_list(tmp_path):
    folder = written(tmp_path, test=TEST, train=TEST.replace("000", "001"), stat=STAT)

    listing = read_lists(find_lists(folder))

    assert [clip.split for clip in listing.clips] == ["train"] * 3 + ["test"] * 3
    assert listing.clips[4] == Clip("0_8-g2rof7E", 49, "heart sounds, heartbeat", "test")


@pytest.mark.parametrize(
    "text",
    [
        "# YouTube ID, start seconds, label, train/test split.\n" + FOUR,
        "youtube_id,start_seconds,label,split\n" + FOUR,
        '"Video ID","Start (second)",Class,Train/test split\n' + FOUR,
        "\ufeff" + FOUR.replace("\n", "\r\n"),
        FOUR.replace(",", ", ").replace("s,  h", "s, h"),
        FOUR.replace(",49,", ",49.0,") + "\n\n",
        FOUR.rstrip("\n"),
    ],
    ids=["comment", "header", "quoted header", "windows", "blanks", "decimals", "no last line break"],
)
def test_variants_of_lists_give_the_same_clips(tmp_path, text):
    expected = read_lists(find_lists(written(tmp_path / "one", vggsound=FOUR))).clips

    assert read_lists(find_lists(written(tmp_path / "two", vggsound=text))).clips == expected


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["LDoXsip0BEQ", "177", "", "train"], "it has no label"),
        (["LDoXsip0BEQ", "177", "?", "train"], "the label is '\\?'"),
        (["LDoXsip0BEQ", "soon", "parrot talking", "train"], "the start is 'soon'"),
        (["LDoXsip0BEQ", "1.5", "parrot talking", "train"], "the start is '1.5'"),
        (["LDoXsip0BEQ", "-1", "parrot talking", "train"], "the start is '-1'"),
        (["LDo", "177", "parrot talking", "train"], "the video id is 'LDo'"),
        (["LDoXsip0B/Q", "177", "parrot talking", "train"], "the video id is"),
        (["LDoXsip0BEQ", "177", "parrot talking", "valid"], "the split is 'valid'"),
        (["LDoXsip0BEQ", "177", "heart sounds", " heartbeat", "train"], "it has 5 cells.*labels with a comma"),
        (["LDoXsip0BEQ_000177.mp4", "parrot talking"], "the split is not known"),
    ],
)
def test_malformed_lines_are_refused(cells, message):
    with pytest.raises(ValueError, match=message):
        parse(cells)


def test_malformed_and_duplicate_lines_are_reported_and_the_others_read(tmp_path):
    text = FOUR + "LDoXsip0BEQ,177,parrot singing,train\nLDoXsip0BEQ,177,parrot talking,train\nglLQrEijrKg,300,,test\n"

    listing = read_lists(find_lists(written(tmp_path, vggsound=text)))

    assert len(listing.clips) == 3
    assert listing.refused == [
        ("vggsound.csv line 4", "LDoXsip0BEQ_000177 is listed before, as label 'parrot talking'"),
        ("vggsound.csv line 5", "LDoXsip0BEQ_000177 is listed before"),
        ("vggsound.csv line 6", "it has no label"),
    ]


def test_a_stray_quote_affects_only_its_own_line(tmp_path):
    lines = [f'{video}_000001.mp4,"dog, barking"' for video in ("AAAAAAAAAAA", "BBBBBBBBBBB", "CCCCCCCCCCC")]
    lines[1:1] = ['DDDDDDDDDDD_000001.mp4,"dog', 'EEEEEEEEEEE_000001.mp4,"dog" barking']
    (tmp_path / "train.csv").write_text("\n".join(lines))

    listing = read_lists([tmp_path / "train.csv"])

    assert [(clip.video[0], clip.label) for clip in listing.clips] == [(name, "dog, barking") for name in "ABC"]
    assert [where for where, _ in listing.refused] == ["train.csv line 2", "train.csv line 3"]
    assert all("labels with a comma are quoted" in reason for _, reason in listing.refused)


def test_labels_of_several_lines_or_of_200_000_characters_are_refused(tmp_path):
    text = 'AAAAAAAAAAA,1,"dog\nbarking",train\n' + FOUR + f"BBBBBBBBBBB,1,{'x' * 200_000},train\n"

    listing = read_lists(find_lists(written(tmp_path, vggsound=text)))

    assert len(listing.clips) == 3
    assert [where for where, _ in listing.refused] == [f"vggsound.csv line {number}" for number in (1, 2, 6)]


@pytest.mark.parametrize("line", ["badid,foo,dog barking,train", "LDo_000177.mp4,parrot talking", "dog,cat"])
def test_a_malformed_first_line_is_not_a_header(tmp_path, line):
    listing = read_lists(find_lists(written(tmp_path, vggsound=f"{line}\n{FOUR}")))

    assert len(listing.clips) == 3 and [where for where, _ in listing.refused] == ["vggsound.csv line 1"]


def test_other_kinds_of_files_are_refused(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00rubbish")
    (tmp_path / "numbers.csv").write_text("1,2,3\n4,5,6\n")

    with pytest.raises(InputError, match="list.csv is not comma-separated text"):
        read_lists([tmp_path / "list.csv"])
    with pytest.raises(InputError, match="numbers.csv: no line names a clip.*numbers.csv line 1: it has 3 cells"):
        read_lists([tmp_path / "numbers.csv"])


def test_the_only_list_of_a_folder_is_used_and_several_are_refused(tmp_path):
    alone = written(tmp_path / "alone", whatever=FOUR)
    many = written(tmp_path / "many", one=FOUR, two=FOUR)

    assert find_lists(alone) == [alone / "whatever.csv"]
    assert find_lists(many, many / "two.csv") == [many / "two.csv"]
    with pytest.raises(InputError, match=r"no vggsound.csv, train.csv or test.csv \(.csv files: one.csv, two.csv\)"):
        find_lists(many)
    with pytest.raises(InputError, match="three.csv is not a file"):
        find_lists(many, many / "three.csv")


def test_classes_are_all_some_or_those_of_a_file(tmp_path):
    labels = ["parrot talking", "ambulance siren", "basketball bounce", "bird chirping, tweeting", "ambulance siren"]
    (tmp_path / "stat.csv").write_text(STAT)
    (tmp_path / "names.txt").write_text('parrot talking\n\n"bird chirping, tweeting"\nparrot talking\n')

    every = choose_classes(labels)

    assert every == ["ambulance siren", "basketball bounce", "bird chirping, tweeting", "parrot talking"]
    assert choose_classes(labels, "2") == every[:2]
    assert choose_classes(labels, str(tmp_path / "stat.csv")) == every[:3]
    assert choose_classes(labels, str(tmp_path / "names.txt")) == every[2:]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("1", "2 to 3"),
        ("4", "2 to 3"),
        ("gone.csv", "'gone.csv': a number, or a file"),
        ("FILE", "Did you mean 'b cd'?"),
    ],
)
def test_unknown_classes_are_refused(tmp_path, classes, message):
    (tmp_path / "x.csv").write_text("a\nb dc\nzzz\n")

    with pytest.raises(InputError, match=message):
        choose_classes(["a", "b cd", "e"], str(tmp_path / "x.csv") if classes == "FILE" else classes)


@pytest.mark.parametrize(("content", "message"), [(b"\xff\xfea\x00", "not comma-separated"), (b'a\n"b cd\n', "line 2")])
def test_a_malformed_file_of_classes_is_refused(tmp_path, content, message):
    (tmp_path / "x.csv").write_bytes(content)

    with pytest.raises(InputError, match=f"x.csv.*{message}"):
        choose_classes(["a", "b cd"], str(tmp_path / "x.csv"))


def test_the_first_clips_of_each_class_and_split_are_taken():
    clips = [*labelled("a", "b", "a", "a", "c"), *labelled("a", split="test")]

    assert of_classes(clips, ["a", "b"]) == [clips[place] for place in (0, 1, 2, 3, 5)]
    assert of_classes(clips, ["a", "b"], most=2) == [clips[place] for place in (0, 1, 2, 5)]


def test_the_class_is_the_second_to_last_part_of_file_names():
    clip = Clip("_8_g2rof7E_", 49, "bee, wasp, etc. buzzing", "train")

    assert clip.name.split("_")[-2] == token_of(clip.label) == "bee-wasp-etc-buzzing"
    with pytest.raises(InputError, match="'a b' and 'a, b' would both be called a-b"):
        refuse_alike(["a b", "c", "a, b"])


def test_files_are_matched_in_all_subfolders(tmp_path):
    clips = labelled("a", "b", "c")
    for name in (f"{clips[0].stem}.mp4", f"deep/er/{clips[1].stem}.MKV", "other_000001.webm", f".{clips[2].stem}.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / f"{clips[0].stem}.mkv").touch()

    files, missing, spare = match_files(tmp_path, clips)

    assert files == {
        clips[0].stem: tmp_path / f"{clips[0].stem}.mp4",
        clips[1].stem: Path(f"{tmp_path}/deep/er") / f"{clips[1].stem}.MKV",
    }
    assert missing == [(clips[2].stem, f"there is no {clips[2].stem}.mp4")] and spare == 1
