from pathlib import Path

import pytest

from xmodal.data.ravdess.names import Clip, actor_of, find_pairs, pair_files, parse


def names(pairs):
    return [(pair.clip.name, pair.sound.name, pair.picture.name) for pair in pairs]


def test_seven_fields_are_a_modality_and_a_clip():
    modality, clip = parse("03-01-06-01-02-01-12")

    assert (modality, clip) == (3, Clip(vocal=1, emotion=6, intensity=1, statement=2, repetition=1, actor=12))
    assert clip.label == 5 and clip.name == "01-06-01-02-01-12"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("03-01-06-01-02-01", "seven fields of two digits"),
        ("03-01-06-01-02-01-12-01", "seven fields"),
        ("3-1-6-1-2-1-12", "two digits"),
        ("03-01-0x-01-02-01-12", "two digits"),
        ("03-01-٠٦-01-02-01-12", "two digits"),
        ("speech", "seven fields"),
        ("03-01-06-01-02-01-25", "the actor is 25: 01 to 24"),
        ("03-01-06-01-02-01-00", "the actor is 00"),
        ("03-01-09-01-02-01-12", "the emotion is 09: 01 to 08"),
        ("04-01-06-01-02-01-12", "the modality is 04: 01 to 03"),
        ("03-03-06-01-02-01-12", "the vocal channel is 03"),
        ("03-01-01-02-02-01-12", "no strong neutral"),
    ],
)
def test_malformed_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        parse(name)


@pytest.mark.parametrize(
    ("name", "actor"), [("01-06-01-02-01-12", 12), ("03-01-06-01-02-01-07", 7), ("clip_7", 0), ("12", 0)]
)
def test_the_actor_is_the_last_field(name, actor):
    assert actor_of(name) == actor


def test_sound_and_video_of_a_clip_are_paired_across_folders(tmp_path):
    for place in ("a/Actor_12/03-01-06-01-02-01-12.wav", "b/01-01-06-01-02-01-12.MP4", "b/02-01-06-01-02-01-12.mp4"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    for other in ("a/readme.txt", "b/._03-01-06-01-02-01-12.wav"):
        (tmp_path / other).touch()

    pairs, problems = find_pairs(tmp_path)

    assert names(pairs) == [("01-06-01-02-01-12", "03-01-06-01-02-01-12.wav", "01-01-06-01-02-01-12.MP4")]
    assert problems == []


def test_video_without_sound_track_is_used_if_there_is_no_other():
    pairs, problems = pair_files([Path("03-01-06-01-02-01-12.wav"), Path("02-01-06-01-02-01-12.mp4")])

    assert names(pairs)[0][2] == "02-01-06-01-02-01-12.mp4" and not problems


def test_all_unusable_files_are_reported():
    files = [
        "x/03-01-06-01-02-01-12.wav",
        "y/03-01-06-01-02-01-12.wav",
        "x/01-01-06-01-02-01-12.mp4",
        "x/03-01-03-01-02-01-12.wav",
        "x/01-01-04-01-02-01-12.mp4",
        "x/01-01-05-01-02-01-12.wav",
        "x/noise.wav",
    ]

    pairs, problems = pair_files(map(Path, files))

    assert len(pairs) == 1 and pairs[0].sound == Path(files[0])
    reasons = dict(problems)
    assert "another file of this name, x/03-01-06-01-02-01-12.wav, which is used" in reasons["03-01-06-01-02-01-12.wav"]
    assert "no 01-01-03-01-02-01-12.mp4 and no 02-" in reasons["01-03-01-02-01-12"]
    assert "there is no 03-01-04-01-02-01-12.wav" in reasons["01-04-01-02-01-12"]
    assert "modality 03 were expected to be wav" in reasons["01-01-05-01-02-01-12.wav"]
    assert "seven fields" in reasons["noise.wav"] and len(problems) == 5


def test_song_is_skipped_by_default():
    files = [Path(f"{modality}-0{vocal}-03-01-01-01-05{suffix}") for vocal in (1, 2) for modality, suffix in KINDS]

    counts = {vocal: pair_files(files, vocal) for vocal in ("speech", "song", "both")}

    assert {vocal: len(pairs) for vocal, (pairs, _) in counts.items()} == {"speech": 1, "song": 1, "both": 2}
    assert not any(problems for _, problems in counts.values())


KINDS = (("03", ".wav"), ("01", ".mp4"))
