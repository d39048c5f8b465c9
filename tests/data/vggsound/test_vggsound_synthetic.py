import csv
import json
from dataclasses import replace

import av
import numpy as np
import pytest

from xmodal.data.media.sound import read_sound
from xmodal.data.media.spectrogram import magnitudes
from xmodal.data.media.video import frames_at
from xmodal.data.vggsound.synthetic import (
    BANDS,
    CLASSES,
    FULL,
    PITCHES,
    RATE,
    Design,
    draw_cues,
    frames_of,
    list_clips,
    make,
    sound_of,
)
from xmodal.errors import InputError

DESIGN = Design(classes=4, shared=1.5, specific=1.0, noise=0.0, seconds=1.0, size=32, seed=0)


def drawn(design=DESIGN, *, count=1500):
    """Label, shared, audio and video features of ``count`` clips of each class."""
    rows = []
    for label in range(design.classes):
        random = np.random.default_rng(label)
        for _ in range(count):
            cues = draw_cues(label, design, random)
            rows.append((label, *cues["shared"], *cues["audio"], *cues["video"]))
    return np.array(rows)


def still(*, shared=(0.0,), audio=(0.0,), video=(0.0,)):
    return {"shared": np.array(shared), "audio": np.array(audio), "video": np.array(video)}


@pytest.mark.parametrize("classes", [4, 8])
def test_the_signs_of_the_features_are_the_bits_of_the_class(classes):
    for label, *shared, audio, video in drawn(replace(DESIGN, classes=classes), count=50):
        bits = [*(value > 0 for value in shared), audio + video > 0]
        assert sum(bit << place for place, bit in enumerate(reversed(bits))) == label
        assert len(bits) == classes.bit_length() - 1


@pytest.mark.parametrize("classes", [4, 8])
def test_features_are_normal_and_independent_over_all_classes(classes):
    """N(0, w⁰²), N(0, w²), and N(0, w²/4) for the picture; neither signs nor sizes of features are correlated."""
    cues = drawn(replace(DESIGN, classes=classes), count=6000 // classes)[:, 1:]

    assert np.abs(cues.mean(axis=0)).max() < 0.07
    assert cues.std(axis=0) == pytest.approx([1.5] * (cues.shape[1] - 2) + [1.0, 0.5], rel=0.05)
    assert np.abs(np.corrcoef(cues.T) - np.eye(cues.shape[1])).max() < 0.05
    assert np.abs(np.corrcoef(np.abs(cues).T) - np.eye(cues.shape[1])).max() < 0.05


def test_sound_predicts_the_last_bit_in_85_percent_and_the_picture_in_65():
    label, _, audio, video = drawn().T

    from_audio, from_video = (((values > 0) == label % 2).mean() for values in (audio, video))

    assert from_audio == pytest.approx(1 - np.arctan(0.5) / np.pi, abs=0.015)
    assert from_video == pytest.approx(1 - np.arctan(2) / np.pi, abs=0.015)


def loudness(waveform, low, high):
    import torch

    power = magnitudes(torch.from_numpy(waveform.astype(np.float64)), window=1024, hop=512).square().mean(dim=1)
    return 10 * np.log10(float(power[round(low * 1024 / RATE) : round(high * 1024 / RATE) + 1].sum()))


def test_features_set_the_balance_of_tones_and_hisses():
    def sound(**cues):
        return sound_of(still(**cues), 1.0, np.random.default_rng(0))

    first, second = sound(shared=(FULL,)), sound(shared=(-FULL,))
    # Apart from harmonics, only the second tone has power at 1,400 Hz, and only the first at 220 Hz.
    ratio = [loudness(wave, 1350, 1450) - loudness(wave, 180, 260) for wave in (first, second)]
    assert ratio[1] - ratio[0] > 25 and PITCHES == (220.0, 1400.0)
    low, high = sound(audio=(FULL,)), sound(audio=(-FULL,))
    balance = [loudness(wave, 5000, 6200) - loudness(wave, 2900, 3500) for wave in (low, high)]
    assert balance[1] - balance[0] == pytest.approx(48, abs=8) and BANDS == (3200.0, 5600.0)


def test_features_set_the_balance_of_balls_and_stripes():
    def frames(**cues):
        return np.stack(list(frames_of(still(**cues), DESIGN, np.random.default_rng(0)))).astype(float)

    def colours(frames):
        """Shares of the pixels of the two balls: red, and its complement."""
        red = frames[..., 0] - frames[..., 1:].max(axis=3)
        return (red > 60).mean(), (red < -60).mean()

    assert frames().shape == (30, 32, 32, 3)
    (large, small), (little, much) = colours(frames(shared=(FULL,))), colours(frames(shared=(-FULL,)))
    assert large > 4 * small > 0 and much > 4 * little > 0
    assert colours(frames()) == pytest.approx(colours(frames(video=(FULL,))), abs=0.02)
    rising, falling = (np.abs(np.fft.fft2(frames(video=(sign * FULL,))[0, :, :, 0])) for sign in (1, -1))
    # Frequencies of x + y and of x - y.
    plus, minus = (slice(5, 7), slice(5, 7)), (slice(5, 7), slice(-6, -4))
    assert rising[plus].max() > 2 * rising[minus].max() and falling[minus].max() > 2 * falling[plus].max()


def test_a_synthetic_folder_has_a_list_and_clips_as_in_the_public_data_set(synthetic_vggsound):
    raw = synthetic_vggsound / "raw"
    rows = list(csv.reader((raw / "vggsound.csv").read_text().splitlines()))
    truth = json.loads((raw / "truth.json").read_text())

    assert [row[3] for row in rows] == ["train"] * 12 + ["test"] * 8
    assert sorted({row[2] for row in rows}) == truth["classes"] == list(CLASSES[:4])
    assert '"bird chirping, tweeting"' in (raw / "vggsound.csv").read_text()
    assert set(truth["cues"]) == {f"{row[0]}_{int(row[1]):06d}" for row in rows}
    for video, start, label, _ in rows:
        path = raw / f"{video}_{int(start):06d}.mp4"
        with av.open(str(path)) as container:
            assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
            assert container.streams.video[0].duration * container.streams.video[0].time_base == pytest.approx(
                1, abs=0.05
            )
        assert read_sound(path).seconds == pytest.approx(1, abs=0.05)
        assert frames_at(path, [0.5], height=32, width=32).std() > 10
        cues = truth["cues"][path.stem]
        (shared,), (audio,), (video,) = (cues[kind] for kind in ("shared", "audio", "video"))
        assert CLASSES.index(label) == 2 * (shared > 0) + (audio + video > 0)
    assert truth["decisive"] == {"shared": 1, "audio": 1, "video": 1}


def test_a_seed_gives_the_same_bytes_and_another_seed_other_names(synthetic_vggsound, tmp_path):
    again = make(tmp_path / "again", clips=3, test_clips=2, seconds=1, size=32)

    first, second = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (synthetic_vggsound / "raw", again)
    )
    assert first == second and len(first) == 22
    names = [
        {clip.stem for clip, _ in list_clips(replace(DESIGN, seed=seed), {"train": 3, "test": 2})} for seed in (0, 1)
    ]
    assert {f"{name}.mp4" for name in names[0]} == set(first) - {"vggsound.csv", "truth.json"}
    assert not names[0] & names[1]


def test_all_wrong_arguments_are_reported_together(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()

    with pytest.raises(InputError) as caught:
        make(tmp_path / "full", format="raws", classes=5, clips=0, seconds=0.1, size=33)

    problems = "\n".join(caught.value.problems)
    assert "Did you mean 'raw'?" in problems and "already exists" in problems
    for problem in ("classes is 5: 4 or 8", "clips is 0", "seconds is 0.1", "size is 33: an even"):
        assert problem in problems
