import csv
import json
from dataclasses import replace

import av
import numpy as np
import pytest

from xmodal.data.sound import read_sound
from xmodal.data.spectrogram import magnitudes
from xmodal.data.vggsound_made import (
    BANDS,
    CLASSES,
    PITCHES,
    RATE,
    Design,
    draw_cues,
    frames_of,
    list_clips,
    make,
    sound_of,
)
from xmodal.data.video import frames_at
from xmodal.errors import InputError

DESIGN = Design(classes=4, shared=1.5, specific=1.0, noise=0.0, seconds=1.0, size=32, seed=0)


def drawn(label, *, count=400, design=DESIGN):
    random = np.random.default_rng(label)
    return [draw_cues(label, design, random) for _ in range(count)]


def still(*, shared=(0.0, 0.0), audio=(0.0, 0.0), video=(0.0, 0.0)):
    return {"shared": np.array(shared), "audio": np.array(audio), "video": np.array(video)}


def both_halves(count=1500):
    """Features that decide: (clips, 2) of the first two classes, and of the others, with their labels."""
    first = [cues["shared"] for label in (0, 1) for cues in drawn(label, count=count)]
    others = [(label - 2, cues["audio"], cues["video"]) for label in (2, 3) for cues in drawn(label, count=count)]
    return np.array(first), others


@pytest.mark.parametrize(("label", "classes"), [(0, 4), (1, 4), (2, 4), (3, 4), (1, 12), (10, 12)])
def test_the_class_is_what_its_features_decide(label, classes):
    half = classes // 2
    for cues in drawn(label, count=100, design=replace(DESIGN, classes=classes)):
        if label < half:
            assert cues["shared"].argmax() == label and not cues["audio"].any() and not cues["video"].any()
        else:
            assert (cues["audio"] + cues["video"]).argmax() == label - half and not cues["shared"].any()


def test_features_are_normal_apart_from_what_they_decide():
    """Over all classes the features are N(0, w⁰²), N(0, w²) and, what the picture shows, half as large."""
    first, others = both_halves()

    for values, deviation in ((first, 1.5), ([a for _, a, _ in others], 1.0), ([v for _, _, v in others], 0.5)):
        assert abs(np.mean(values)) < 0.05 and np.std(values) == pytest.approx(deviation, rel=0.05)


def test_the_sound_alone_tells_its_classes_in_85_percent_and_the_picture_in_65():
    _, others = both_halves()

    heard = np.mean([audio.argmax() == label for label, audio, _ in others])
    seen = np.mean([video.argmax() == label for label, _, video in others])

    assert heard == pytest.approx(1 - np.arctan(0.5) / np.pi, abs=0.02)
    assert seen == pytest.approx(1 - np.arctan(2) / np.pi, abs=0.02)


def test_no_modality_tells_the_other_what_it_alone_shows():
    _, others = both_halves()

    numbers = np.array([[*audio, *video] for _, audio, video in others])

    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.05


def loudness(waveform, low, high):
    import torch

    found = magnitudes(torch.from_numpy(waveform.astype(np.float64)), window=1024, hop=512).square().mean(dim=1)
    return 10 * np.log10(float(found[round(low * 1024 / RATE) : round(high * 1024 / RATE) + 1].sum()))


def test_tones_and_hisses_are_as_loud_as_their_features_are_large():
    def heard(**cues):
        return sound_of(still(**cues), 1.0, np.random.default_rng(0))

    first, second = heard(shared=(2.5, -2.5)), heard(shared=(-2.5, 2.5))
    # the second pitch is the only one at 1,400 Hz but for harmonics, the first the only one at 220
    ratio = [loudness(wave, 1350, 1450) - loudness(wave, 180, 260) for wave in (first, second)]
    assert ratio[1] - ratio[0] > 25 and PITCHES == (220.0, 1400.0)
    low, high = heard(audio=(2.5, -2.5)), heard(audio=(-2.5, 2.5))
    balance = [loudness(wave, 5000, 6200) - loudness(wave, 2900, 3500) for wave in (low, high)]
    assert balance[1] - balance[0] == pytest.approx(48, abs=8) and BANDS == (3200.0, 5600.0)


def test_balls_are_as_large_and_stripes_as_clear_as_their_features():
    def seen(**cues):
        return np.stack(list(frames_of(still(**cues), DESIGN, np.random.default_rng(0)))).astype(float)

    def colourful(frames):
        return (frames.max(axis=3) - frames.min(axis=3) > 60).mean()

    assert seen().shape == (30, 32, 32, 3)
    assert colourful(seen(shared=(2.5, 2.5))) > 4 * colourful(seen(shared=(-2.5, -2.5))) > 0
    rising, falling = (
        np.abs(np.fft.fft2(seen(video=values, shared=(-9, -9))[0, :, :, 0])) for values in ((2.5, -2.5), (-2.5, 2.5))
    )
    plus, minus = (slice(5, 7), slice(5, 7)), (slice(5, 7), slice(-6, -4))  # frequencies of x + y and of x - y
    assert rising[plus].max() > 3 * rising[minus].max() and falling[minus].max() > 3 * falling[plus].max()


def test_a_made_folder_is_a_public_list_and_real_clips(made_vggsound):
    raw = made_vggsound / "raw"
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
        decides = cues["shared"] if CLASSES.index(label) < 2 else np.add(cues["audio"], cues["video"])
        assert CLASSES.index(label) % 2 == int(np.argmax(decides))


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_names(made_vggsound, tmp_path):
    again = make(tmp_path / "again", clips=3, test_clips=2, seconds=1, size=32)

    one, two = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (made_vggsound / "raw", again)
    )
    assert one == two and len(one) == 22
    names = [
        {clip.stem for clip, _ in list_clips(replace(DESIGN, seed=seed), {"train": 3, "test": 2})} for seed in (0, 1)
    ]
    assert {f"{name}.mp4" for name in names[0]} == set(one) - {"vggsound.csv", "truth.json"}
    assert not names[0] & names[1]


def test_what_can_not_be_made_is_said_at_once(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()

    with pytest.raises(InputError) as caught:
        make(tmp_path / "full", format="raws", classes=5, clips=0, seconds=0.1, size=33)

    said = "\n".join(caught.value.problems)
    assert "Did you mean 'raw'?" in said and "is there already" in said
    for problem in ("classes is 5: an even", "clips is 0", "seconds is 0.1", "size is 33: an even"):
        assert problem in said
