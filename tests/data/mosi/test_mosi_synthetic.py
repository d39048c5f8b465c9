import numpy as np
import pytest

from xmodal.data.mosi.synthetic import MODALITIES, SyntheticSettings, draw, see, steps_of

SMALL = SyntheticSettings(samples=(30, 10, 20), steps=8)


def small(**options):
    return SyntheticSettings(samples=(30, 10, 20), steps=8, **options)


def test_keys_and_shapes_are_those_of_the_published_files():
    splits = draw(SMALL, 0)

    assert list(splits) == ["train", "valid", "test"] and [len(part["id"]) for part in splits.values()] == [30, 10, 20]
    train = splits["train"]
    assert {"raw_text", "id", "text", "audio", "vision", "text_bert", "annotations"} < set(train)
    assert {"classification_labels", "regression_labels", "audio_lengths", "vision_lengths"} < set(train)
    assert [train[name].shape for name in MODALITIES] == [(30, 8, 24), (30, 8, 12), (30, 8, 5)]
    assert train["text_bert"].shape == (30, 3, 8) and train["id"].dtype == object
    assert splits["valid"]["id"][0] == "vid003$_$0" and len({i for part in splits.values() for i in part["id"]}) == 60


def test_features_follow_the_formula_sample_by_sample():
    random = np.random.default_rng(0)
    score, envelope, nuisance = np.array([1.4, -0.6]), random.random((2, 4)), random.normal(size=(2, 3))
    directions = random.normal(size=(5, 6))

    signal = see(score, directions, envelope, nuisance, 0.7)

    for i in range(2):
        for t in range(4):
            clean = score[i] * directions[0] + 0.5 * (abs(score[i]) - 1) * directions[1]
            expected = envelope[i, t] * clean + 0.7 * sum(nuisance[i, k] * directions[2 + k] for k in range(3))
            np.testing.assert_allclose(signal[i, t], expected)


def test_scores_are_multiples_of_two_tenths_in_plus_minus_three():
    labels = np.concatenate([part["regression_labels"] for part in draw(SyntheticSettings(), 1).values()])

    np.testing.assert_allclose(labels * 5, np.round(labels * 5), atol=1e-5)
    assert np.abs(labels).max() <= 3 and (np.abs(labels) == 3).any() and 1.0 < labels.std() < 1.6


def test_noise_changes_training_labels_and_nothing_else():
    clean, noisy = draw(SMALL, 0), draw(small(noise=1.5), 0)

    assert not np.array_equal(clean["train"]["regression_labels"], noisy["train"]["regression_labels"])
    assert np.abs(noisy["train"]["regression_labels"]).max() <= 3
    for split in ("train", "valid", "test"):
        same = [name for name in MODALITIES if np.array_equal(clean[split][name], noisy[split][name])]
        assert same == list(MODALITIES)
    assert np.array_equal(clean["test"]["regression_labels"], noisy["test"]["regression_labels"])


def test_lengths_mask_and_padding_agree():
    for settings in (SMALL, small(unaligned=True)):
        train, steps = draw(settings, 3)["train"], steps_of(settings)

        lengths = {name: np.array(train[f"{name}_lengths"]) for name in ("audio", "vision")}
        lengths["text"] = train["text_bert"][:, 1].sum(axis=1)
        assert lengths["text"].min() >= 4 and lengths["text"].max() == 8
        for name, length in lengths.items():
            padded = np.arange(steps[name]) >= length[:, None]
            assert (train[name][padded] == 0).all() and (train[name][~padded] != 0).all()
            assert np.array_equal(length, lengths["text"] * steps[name] // 8)
        ids, mask = train["text_bert"][:, 0], train["text_bert"][:, 1]
        assert ((ids >= 1000) & (ids < 2000))[mask == 1].all() and (ids[mask == 0] == 0).all()


def test_unaligned_modalities_have_different_numbers_of_steps():
    assert steps_of(small(unaligned=True)) == {"text": 8, "vision": 16, "audio": 12}
    assert steps_of(SMALL) == {"text": 8, "vision": 8, "audio": 8}


def least_squares(splits, name):
    """Correlation on the test split of a linear fit to the means over time."""

    def read(split):
        values = splits[split][name]
        real = np.maximum(1, (values != 0).any(axis=2).sum(axis=1))
        return np.c_[values.sum(axis=1) / real[:, None], np.ones(len(values))]

    weights = np.linalg.lstsq(read("train"), splits["train"]["regression_labels"], rcond=None)[0]
    return np.corrcoef(read("test") @ weights, splits["test"]["regression_labels"])[0, 1]


@pytest.mark.parametrize("dominant", MODALITIES)
def test_the_dominant_modality_predicts_best(dominant):
    correlations = {name: least_squares(draw(SyntheticSettings(dominant=dominant), 0), name) for name in MODALITIES}

    assert max(correlations, key=correlations.get) == dominant and correlations[dominant] > 0.93
    assert all(0.3 < value < 0.93 for name, value in correlations.items() if name != dominant)


def test_the_same_seed_draws_the_same_set():
    first, again, other = draw(SMALL, 5), draw(SMALL, 5), draw(SMALL, 6)

    assert np.array_equal(first["train"]["text"], again["train"]["text"])
    assert not np.array_equal(first["train"]["text"], other["train"]["text"])
