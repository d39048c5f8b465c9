import functools
import json

import av
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from xmodal.cli.main import answer
from xmodal.data.media.sound import log_mel, read_sound
from xmodal.data.media.video import frames_at
from xmodal.data.ravdess.names import Clip, find_pairs, parse
from xmodal.data.ravdess.synthetic import Design, draw_cues, draw_face, list_clips, make, show, write_recording
from xmodal.errors import InputError


def design(**more):
    return Design(**({"shared": 1.0, "specific": 1.0, "noise": 0.2, "seconds": 0.7, "seed": 0} | more))


@functools.cache
def drawn(label, count=2000, **more):
    """Features of many clips of one emotion: (count, 2) shared, (count, 1) of either modality."""
    random = np.random.default_rng(label)
    many = [draw_cues(label, design(**more), random) for _ in range(count)]
    return {kind: np.array([cues[kind] for cues in many]) for kind in many[0]}


def test_signs_of_the_decisive_sums_are_the_bits_of_the_emotion():
    for label in range(8):
        cues = drawn(label, 50)

        assert ((cues["shared"] > 0) == [bool(label & 4), bool(label & 2)]).all()
        assert ((cues["audio"] + cues["image"] > 0) == bool(label & 1)).all()


def test_over_all_emotions_the_kinds_are_independent():
    cues = [np.concatenate([drawn(label)[kind] for label in range(8)]) for kind in ("shared", "audio", "image")]

    every = np.concatenate(cues, axis=1)
    correlation = np.corrcoef(np.concatenate([every, np.abs(every)], axis=1).T) - np.eye(8)

    assert np.abs(correlation).max() < 0.024  # three deviations of 16,000 draws
    assert every.std(axis=0).tolist() == pytest.approx([1.0, 1.0, 1.0, 0.5], abs=0.02)


def test_the_audio_feature_predicts_the_third_bit_in_85_percent():
    right = np.mean([(drawn(label)["audio"] > 0) == bool(label & 1) for label in range(8)])

    assert right == pytest.approx(1 - np.arctan(0.5) / np.pi, abs=0.01)


@pytest.mark.parametrize("kind", ["shared", "specific"])
def test_features_of_strength_zero_are_zero(kind):
    for label in (1, 6):
        cues = drawn(label, 5, **{kind: 0.0})
        assert all((cues[name] == 0).all() for name in (["shared"] if kind == "shared" else ["audio", "image"]))


def test_shown_features_are_decisive_features_plus_noise():
    random = np.random.default_rng(0)
    cues = {"shared": np.array([1.0, -1.0]), "audio": np.array([0.5]), "image": np.array([9.0])}

    exact = [show(cues, kind, design(noise=0.0), random) for kind in ("audio", "image")]
    noisy = np.array([show(cues, "audio", design(noise=0.2), random) for _ in range(2000)])

    assert (2.5 * exact[0]).tolist() == [0.5, -0.5, 0.5]  # half as strong in the sound
    assert (2.5 * exact[1]).tolist() == [1.0, -1.0, 2.5]  # clipped
    np.testing.assert_allclose(2.5 * noisy.mean(axis=0), 2.5 * exact[0], atol=0.02)
    np.testing.assert_allclose(2.5 * noisy.std(axis=0), 0.2, atol=0.02)


def test_names_of_clips_occur_in_the_archive_too():
    clips = list_clips(24, 4)

    assert len(set(clips)) == 24 * 8 * 4 and all(parse(f"03-{clip.name}")[1] == clip for clip in clips)
    assert {clip.actor for clip in list_clips(3, 1)} == {1, 2, 3}


def test_the_recordings_are_wav_and_mp4_as_in_the_archive(recordings):
    pairs, problems = find_pairs(recordings)

    assert len(pairs) == 32 and problems == []
    for pair in pairs[:3]:
        assert pair.sound.parent.name == pair.picture.parent.name == f"Actor_{pair.clip.actor:02d}"
        sound, track = read_sound(pair.sound), read_sound(pair.picture)
        assert sound.rate == track.rate == 48000 and 0.6 < sound.seconds < 0.8
        shared = min(len(sound.waveform), len(track.waveform))
        assert np.corrcoef(sound.waveform[:shared], track.waveform[:shared])[0, 1] > 0.95
        with av.open(str(pair.picture)) as container:
            assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]


def test_truth_json_holds_the_decisive_features(recordings):
    truth = json.loads((recordings / "truth.json").read_text())

    assert truth["decisive"] == {"shared": 2, "audio": 1, "image": 1} and len(truth["cues"]) == 32
    cues = truth["cues"]["01-04-01-01-01-03"]  # sad, the fourth: the bits are 0, 1 and 1
    assert cues["shared"][0] < 0 < cues["shared"][1] and cues["audio"][0] + cues["image"][0] > 0


def test_each_modality_shows_the_shared_features_and_its_specific_one(tmp_path):
    random, clips = np.random.default_rng(0), list_clips(24, 2)[::4]
    targets, sounds, faces = [], [], []
    for clip in clips:
        cues = {kind: random.normal(size=size) for kind, size in (("shared", 2), ("audio", 1), ("image", 1))}
        targets.append(np.concatenate(list(cues.values())))
        sounds.append(features_of_sound(clip, cues))
        faces.append(draw_face(clip.actor, *show(cues, "image", design(noise=0.0), random))[::3, ::3].ravel() / 255.0)

    scores = {name: explained(np.array(x), np.array(targets)) for name, x in (("audio", sounds), ("image", faces))}

    assert min(scores["audio"][:3]) > 0.8 and scores["audio"][3] < 0.4
    assert min(scores["image"][[0, 1, 3]]) > 0.6 and scores["image"][2] < 0.4


def features_of_sound(clip, cues):
    from xmodal.data.ravdess.synthetic import speak

    random = np.random.default_rng(clip.actor)
    waveform = speak(clip, show(cues, "audio", design(noise=0.0), random), 0.6, random)
    return log_mel(waveform, 48000, bands=16, hop=1024)[:, :28].ravel() / 20


def explained(features, targets):
    """R² on the second half of the clips, of a linear regression that was fitted to the first half."""
    half = len(features) // 2
    predictions = Ridge(10.0).fit(features[:half], targets[:half]).predict(features[half:])
    return 1 - ((predictions - targets[half:]) ** 2).mean(axis=0) / targets[half:].var(axis=0)


def test_the_face_moves_from_neutral_to_the_expression(recordings):
    frames = frames_at(recordings / "Actor_02" / "01-01-03-01-01-01-02.mp4", [0.0, 0.5, 0.99], height=72, width=128)

    first, middle, last = frames.astype(float)
    assert np.abs(middle - first).mean() > 1.2 * np.abs(last - first).mean()


def test_files_of_a_clip_depend_on_the_seed_and_not_on_other_clips(recordings, tmp_path):
    clip = Clip(1, 5, 1, 1, 1, 3)

    again = write_recording((clip, tmp_path / "again", design()))
    write_recording((clip, tmp_path / "other", design(seed=1)))

    for name in (f"03-{clip.name}.wav", f"01-{clip.name}.mp4"):
        content = (recordings / "Actor_03" / name).read_bytes()
        assert (tmp_path / "again" / "Actor_03" / name).read_bytes() == content
        assert (tmp_path / "other" / "Actor_03" / name).read_bytes() != content
    assert again == json.loads((recordings / "truth.json").read_text())["cues"][clip.name]


def test_from_nothing_to_a_checked_folder_by_commands(tmp_path, capsys):
    root = tmp_path / "synthetic"

    status = answer(f"data make ravdess {root} --format prepared --actors 3 --clips 1 --seconds 0.6 --noise 0".split())
    check_status = answer(["data", "check", str(root)])

    assert status == check_status == 0 and "0 errors, 0 warnings" in capsys.readouterr().out
    assert np.load(next((root / "aud_features").iterdir())).shape == (40, 32)
    assert answer(["data", "prepare", "ravdess", str(root / "raw"), str(root), "--frames", "0"]) == 2
    again = "--hop 1024 --frames 32 --height 16 --width 32 --json".split()
    assert answer(["data", "prepare", "ravdess", str(root / "raw"), str(root), *again]) == 0
    assert json.loads(capsys.readouterr().out)["reused"] == 24


def test_all_wrong_arguments_are_reported_together(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(InputError) as caught:
        make(tmp_path, format="row", actors=2, clips=5, seconds=0.1)

    assert len(caught.value.problems) == 5
    assert "actors is 2: 3 to 24" in str(caught.value) and "Did you mean 'raw'" in str(caught.value)
