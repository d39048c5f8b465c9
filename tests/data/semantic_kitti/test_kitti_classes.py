import numpy as np
import pytest

from xmodal.data.semantic_kitti.classes import (
    CLASSES,
    COLOURS,
    KINDS,
    RAW,
    coloured,
    raw_classes,
    shares,
    training_classes,
)
from xmodal.data.semantic_kitti.dataset import class_weights
from xmodal.errors import InputError
from xmodal.losses.segmentation import rarity


def test_the_low_half_of_a_word_is_the_class_and_the_high_one_is_not_looked_at():
    words = np.array([10, 10 + (65535 << 16), 259, 40 + (3 << 16)], np.uint32)

    assert training_classes(words).tolist() == [1, 1, 5, 9]


def test_every_class_of_the_files_has_one_of_training():
    raw = np.array([kind.raw for kind in KINDS])

    assert training_classes(raw).tolist() == [kind.train for kind in KINDS]
    assert len(set(raw.tolist())) == 34


def test_moving_things_are_counted_with_standing_ones():
    standing = {252: 10, 253: 31, 254: 30, 255: 32, 256: 16, 257: 13, 258: 18, 259: 20}

    assert all(
        training_classes(np.array([moving])) == training_classes(np.array([still]))
        for moving, still in standing.items()
    )


def test_written_classes_are_read_as_the_same():
    every = np.arange(len(CLASSES))

    assert training_classes(raw_classes(every)).tolist() == every.tolist()
    assert raw_classes(every).tolist() == list(RAW)


@pytest.mark.parametrize("number", [2, 300, 65535])
def test_a_number_that_no_class_has_is_one_sentence(number):
    with pytest.raises(InputError, match=f"08/000001.label holds the class {number} that SemanticKITTI does not have"):
        training_classes(np.array([10, number]), "08/000001.label")


def test_several_unknown_numbers_are_counted():
    with pytest.raises(InputError, match="the class 2 and 2 more that"):
        training_classes(np.array([4, 2, 3, 10, 2]))


def test_a_class_has_the_colour_of_its_own_number():
    by_name = {kind.name: kind.colour for kind in KINDS}

    assert [COLOURS[CLASSES.index(name)] for name in CLASSES] == [by_name[name] for name in CLASSES]
    assert COLOURS[CLASSES.index("bicycle")] == (100, 230, 245)  # the published list has the car's here


def test_what_is_unlabeled_is_shown_black():
    assert coloured(np.array([[0, 1]])).tolist() == [[[0, 0, 0], [100, 150, 245]]]


def test_names_of_training_are_those_of_their_numbers():
    names = {kind.raw: kind.name for kind in KINDS}

    assert tuple(names[raw] for raw in RAW) == CLASSES


def test_shares_of_joined_classes_are_added():
    assert sum(shares()) == pytest.approx(1.0, abs=1e-5)
    assert shares()[1] == pytest.approx(0.040818519255974316 + 0.001789309418528068)


def test_class_weights_are_those_that_the_losses_derive():
    assert class_weights() == pytest.approx(rarity(shares(), ignore=[0]))
    assert max(class_weights()) == class_weights()[CLASSES.index("motorcyclist")] == 1.0
