import numpy as np
import pytest

from xmodal.data.arrays import from_arrays
from xmodal.data.augment import OPERATIONS, Augment, shift
from xmodal.errors import InputError

ROWS = np.arange(6)


def samples(shape=(6, 1, 5, 5)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def augment(text, *, epoch=0, modality="image", rows=ROWS, seed=0, x=None):
    x = samples() if x is None else x
    return Augment.parse(text, seed=seed)(modality, x[: len(rows)], epoch=epoch, index=rows)


def test_a_sample_does_not_depend_on_the_batch_it_is_in():
    x = samples()

    together = augment("noise:0.5,shift:1,scale:0.2")
    alone = Augment.parse("noise:0.5,shift:1,scale:0.2")("image", x[3:4], epoch=0, index=np.array([3]))

    assert np.array_equal(alone[0], together[3])


@pytest.mark.parametrize("other", [{"epoch": 1}, {"modality": "audio"}, {"seed": 1}, {"rows": ROWS + 1}])
def test_noise_changes_with_epoch_modality_seed_and_row(other):
    assert not np.array_equal(augment("noise:0.1", **other), augment("noise:0.1"))


def test_noise_has_its_strength():
    x = np.zeros((20, 1000), np.float32)

    assert augment("noise:0.3", rows=np.arange(20), x=x).std() == pytest.approx(0.3, rel=0.03)  # 20,000 draws


def test_shift_moves_the_pictures_of_a_video_and_neither_frames_nor_colours():
    video = np.broadcast_to(np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3, 1, 1), (2, 3, 8, 8)).copy()

    moved = shift(video.copy(), 2.0, np.random.default_rng(3))

    assert (moved == 0).any() and (moved.max(axis=(2, 3)) == video[:, :, 0, 0]).all()
    assert ((moved == 0) | (moved == video)).all()


def test_shift_moves_an_image_and_fills_with_zeros():
    x = np.ones((200, 1, 5, 5), np.float32)

    sums = augment("shift:1", rows=np.arange(200), x=x).sum(axis=(1, 2, 3))

    assert set(sums.tolist()) == {25.0, 20.0, 16.0}  # not at all, along one axis, along both


def test_shift_moves_a_sequence_in_time_only():
    x = np.tile(np.arange(1, 9, dtype=np.float32), (50, 2, 1))

    moved = augment("shift:2", rows=np.arange(50), x=x)

    assert np.array_equal(moved[:, 0], moved[:, 1])
    assert {tuple(row) for row in moved[:, 0].tolist()} <= {
        tuple(
            [0.0] * max(step, 0) + list(map(float, range(max(1, 1 - step), min(9, 9 - step)))) + [0.0] * max(-step, 0)
        )
        for step in range(-2, 3)
    }


def test_scale_multiplies_by_one_factor_per_sample():
    x = samples()

    factors = (augment("scale:0.2", x=x) / x).reshape(6, -1)

    assert np.ptp(factors, axis=1).max() < 1e-5 and abs(factors - 1).max() <= 0.2 + 1e-5


def test_the_input_array_is_left_alone():
    x, before = samples(), samples()

    augment("noise:1,shift:2,scale:0.5", x=x)

    assert np.array_equal(x, before)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nois:0.1", "Did you mean 'noise'"),
        ("noise", "expected NAME:STRENGTH"),
        ("noise:loud", "expected NAME:STRENGTH"),
        ("shift:-1", "at least 0"),
        ("scale:nan", "at least 0"),
    ],
)
def test_wrong_augmentation_is_a_sentence(text, sentence):
    with pytest.raises(InputError, match=sentence):
        Augment.parse(text)


def test_no_text_is_no_augmentation():
    assert Augment.parse(" , ").operations == ()


# ---- mirrored and turned


def turned(sample, strength=1.0, draws=400):
    random = np.random.default_rng(0)
    return [OPERATIONS["geometric"](sample, strength, random) for _ in range(draws)]


def test_a_square_picture_is_seen_in_all_eight_ways_and_an_oblong_one_in_four():
    square, oblong = np.arange(9.0).reshape(1, 3, 3), np.arange(6.0).reshape(1, 2, 3)

    assert len({found.tobytes() for found in turned(square)}) == 8
    assert len({found.tobytes() for found in turned(oblong)}) == 4
    assert all(found.shape == oblong.shape for found in turned(oblong))


def test_how_often_a_picture_stays_as_it_is():
    picture = np.arange(9.0).reshape(1, 3, 3)

    same = [np.array_equal(found, picture) for found in turned(picture, 0.5, draws=4000)]

    changed = 1 / 4 * 5 / 8 + 1 / 4 * 1 / 8  # nothing mirrored and 0 degrees, or both mirrored and 180 degrees
    assert np.mean(same) == pytest.approx(0.5 + 0.5 * changed, abs=0.03)


def test_vectors_and_sequences_are_not_turned():
    for shape in ((5,), (2, 8)):
        sample = np.arange(np.prod(shape)).reshape(shape)
        assert all(np.array_equal(found, sample) for found in turned(sample, draws=20))


def test_an_operation_may_name_its_modality():
    augment = Augment.parse("image.noise:1,shift:0", seed=3)
    samples = np.zeros((2, 1, 4, 4), dtype=np.float32)

    image, audio = (augment(name, samples, epoch=0, index=np.arange(2)) for name in ("image", "audio"))

    assert image.any() and not audio.any() and augment.modalities == ("image",)


def test_a_modality_that_is_not_there_is_a_sentence():
    x = np.zeros((20, 3))
    with pytest.raises(InputError, match="Did you mean 'image'"):
        from_arrays({"image": x, "audio": x}, np.arange(20) % 2, augment="imag.noise:1")
    with pytest.raises(InputError, match="Did you mean 'noise'"):
        Augment.parse("image.nois:1")
