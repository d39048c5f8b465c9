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


def test_the_low_bits_of_a_word_are_the_class_and_the_high_bits_are_ignored():
    words = np.array([10, 10 + (65535 << 16), 259, 40 + (3 << 16)], np.uint32)

    assert training_classes(words).tolist() == [1, 1, 5, 9]


def test_every_raw_class_has_a_training_class():
    raw = np.array([kind.raw for kind in KINDS])

    assert training_classes(raw).tolist() == [kind.train for kind in KINDS]
    assert len(set(raw.tolist())) == 34


def test_moving_and_static_objects_are_the_same_class():
    standing = {252: 10, 253: 31, 254: 30, 255: 32, 256: 16, 257: 13, 258: 18, 259: 20}

    assert all(
        training_classes(np.array([moving])) == training_classes(np.array([still]))
        for moving, still in standing.items()
    )


def test_raw_classes_are_mapped_back_to_the_same_training_classes():
    every = np.arange(len(CLASSES))

    assert training_classes(raw_classes(every)).tolist() == every.tolist()
    assert raw_classes(every).tolist() == list(RAW)


@pytest.mark.parametrize("number", [2, 300, 65535])
def test_unknown_classes_are_refused(number):
    with pytest.raises(InputError, match=f"08/000001.label holds the class {number} that SemanticKITTI does not have"):
        training_classes(np.array([10, number]), "08/000001.label")


def test_several_unknown_numbers_are_counted():
    with pytest.raises(InputError, match="the class 2 and 2 more that"):
        training_classes(np.array([4, 2, 3, 10, 2]))


def test_training_classes_have_the_colours_of_their_raw_classes():
    by_name = {kind.name: kind.colour for kind in KINDS}

    assert [COLOURS[CLASSES.index(name)] for name in CLASSES] == [by_name[name] for name in CLASSES]
    # The published list has the colour of the car here.
    assert COLOURS[CLASSES.index("bicycle")] == (100, 230, 245)


def test_unlabeled_is_black():
    assert coloured(np.array([[0, 1]])).tolist() == [[[0, 0, 0], [100, 150, 245]]]


def test_training_classes_have_the_names_of_their_raw_classes():
    names = {kind.raw: kind.name for kind in KINDS}

    assert tuple(names[raw] for raw in RAW) == CLASSES


def test_shares_of_merged_classes_are_added():
    assert sum(shares()) == pytest.approx(1.0, abs=1e-5)
    assert shares()[1] == pytest.approx(0.040818519255974316 + 0.001789309418528068)


def test_class_weights_equal_those_of_the_losses():
    assert class_weights() == pytest.approx(rarity(shares(), ignore=[0]))
    assert max(class_weights()) == class_weights()[CLASSES.index("motorcyclist")] == 1.0
