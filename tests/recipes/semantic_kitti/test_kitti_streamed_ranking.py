"""Channels ranked over more frames than fit into memory: running sums, and a limit on the pixels."""

import numpy as np
import pytest
import torch

from xmodal.data import open_data
from xmodal.data.semantic_kitti.synthetic import make
from xmodal.diagnostics.saliency import measure_saliency
from xmodal.diagnostics.streamed import stream_saliency
from xmodal.engine.processes.launch import launch
from xmodal.errors import InputError
from xmodal.methods import ranking
from xmodal.recipes.semantic_kitti.settings import Settings
from xmodal.study.bench import Bench

LAYER = "embedding"
DRAWN = {"distance": "ncjsd", "disturb": "permute", "permutations": 2}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Eight training frames, and two networks that were not trained."""
    torch.set_num_threads(1)
    root = make(
        tmp_path_factory.mktemp("kitti") / "root", sequences="0,8", frames=9, width=64, height=32, beams=16, turns=128
    )
    options = {"semantic-kitti": {"root": str(root)}}
    settings = Settings(preset="small", student_width=2, teacher_width=4, accelerator="cpu", options=options)
    data = open_data("semantic-kitti", options=options["semantic-kitti"])
    return Bench(data, settings.plan(), seed=0, fabric=launch(settings.machine()))


@pytest.fixture(scope="module")
def networks(bench):
    return bench.network(("image",), side="teacher").module, bench.network(("lidar",)).module


def test_the_stream_is_the_mean_over_batches_with_their_rows_as_weights(bench, networks):
    batches = list(bench.batches(size=3))
    sizes = [len(batch.target) for batch in batches]
    assert sizes == [3, 3, 2]
    parts = [
        measure_saliency(*networks, [batch], LAYER, **DRAWN, seed=1_000_003 * 5 + number, ignore=0)
        for number, batch in enumerate(batches)
    ]

    streamed = stream_saliency(*networks, iter(batches), LAYER, **DRAWN, seed=4, ignore=0)

    expected = sum(size * part.raw for size, part in zip(sizes, parts, strict=True)) / 8
    np.testing.assert_allclose(streamed.raw, expected, rtol=1e-12)
    assert streamed.rows == 8 and streamed.draws.shape == (2, len(expected)) and streamed.population == "batch"
    assert streamed.value.min() == 0 and streamed.value.max() == 1
    deviation = np.sqrt(sum((size * part.deviation) ** 2 for size, part in zip(sizes, parts, strict=True))) / 8
    np.testing.assert_allclose(streamed.deviation, deviation, rtol=1e-12)


def test_a_stream_ranks_channels_almost_as_all_frames_together_do(bench, networks):
    whole = measure_saliency(*networks, bench.batches(), LAYER, distance="mse", permutations=20, ignore=0)
    streamed = stream_saliency(*networks, bench.batches(size=4), LAYER, distance="mse", permutations=20, ignore=0)

    assert np.corrcoef(whole.raw, streamed.raw)[0, 1] > 0.9


def test_what_fits_into_memory_is_ranked_at_once_and_more_is_streamed(bench, networks, monkeypatch):
    def rank(pixels=None):
        bench.measured.clear()
        found = ranking.rank_channels(bench, *networks, LAYER, networks="two", **DRAWN, pixels=pixels)
        (name,) = bench.measured
        return found, name

    at_once, name = rank()
    assert at_once.population == "all" and "streamed" not in name
    limited, name = rank(pixels=3 * 32 * 64)
    assert (limited.population, limited.rows) == ("batch", 3) and name.endswith("streamed in batches of 8, 3 frames")
    monkeypatch.setattr(ranking, "KEPT_BYTES", 1000)
    streamed, name = rank()
    assert (streamed.population, streamed.rows) == ("batch", 8)


def test_limited_frames_are_spread_over_the_training_split(bench):
    (batch,) = bench.batches(size=8, most=3)

    all_frames = next(iter(bench.batches(size=8)))
    # of eight frames the first, the one in the middle and the last
    for place, frame in enumerate([0, 4, 7]):
        assert torch.equal(batch.inputs["image"][place], all_frames.inputs["image"][frame])


def test_frames_that_cannot_be_exchanged_are_an_error(bench, networks):
    with pytest.raises(InputError, match="No batch has two valid rows"):
        stream_saliency(*networks, bench.batches(size=1), LAYER, **DRAWN, ignore=0)


def test_the_flag_reaches_the_method_of_the_mask_topk_alone():
    (ranked,) = Settings(kd_mask="topk", rank_pixels=10**7).comparison().entries
    (plain,) = Settings(kd_mask="pssm", rank_pixels=10**7).comparison().entries

    assert ranked.options["rank_pixels"] == 10**7 and "rank_pixels" not in plain.options
