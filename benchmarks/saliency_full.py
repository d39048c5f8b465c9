"""Time of Algorithm 1 at the size of the RAVDESS experiment: 512 clips, 10 permutations, the published networks.

Sounds of (1, 40, 256), random weights and random samples, one thread, CPU time. All ways need the student's outputs
once; these are random numbers here. The times include everything else: the teacher over all clips, and 10 permutations
of 128 (layer 5) or 1024 channels (layer 4).

- Fair peers: a loop over the layers behind, and at layer 4 an update of the next layer's result by hand; both run the
  teacher once, 32 clips at a time. The loop of layer 4 is run for one permutation, and the others are extrapolated.
- Published way: the whole teacher for every channel and permutation, timed on a few channels of the first permutation
  and extrapolated.

A time is printed only if the distances agree with ours. A minute.

    python benchmarks/saliency_full.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from plain.timing import Row, show
from saliency import must_agree, naive_loop, tail_loop, update_by_hand
from torch import Tensor, nn

from xmodal.diagnostics.saliency import measure_saliency
from xmodal.models.clips.audio_video import SHAPES, build_ravdess, ravdess_layer
from xmodal.models.network import wrap
from xmodal.types import Batch

ROWS, DRAWS = 512, 10
TIMED = 2  # channels of the straightforward way
CHANNELS = {5: 128, 4: 1024}


def compare(place: int, teacher: nn.Module, batch: Batch) -> list[Row]:
    student, layer = wrap(nn.Identity(), ["image"]), ravdess_layer(place, "audio")
    start = time.process_time()
    saliency = measure_saliency(teacher, student, [batch], layer, permutations=DRAWS, seed=0)
    ours = time.process_time() - start
    assert saliency.draws is not None

    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([torch.randperm(ROWS, generator=generator) for _ in range(CHANNELS[place])])[None]
    timed = range(0, CHANNELS[place], CHANNELS[place] // TIMED)
    slow, seconds = naive_loop(teacher, student, batch, layer, drawn, timed)
    must_agree(saliency.draws[:1, list(timed)], slow)
    published = seconds * DRAWS * CHANNELS[place]

    peers: dict[str, tuple[Callable[..., Tensor], int]] = {"a loop over the tail": (loop_over(place), DRAWS)}
    if place == 4:
        peers = {"a loop over the tail": (loop_over(place), 1), "the update by hand": (update_by_hand, DRAWS)}
    rows = []
    for name, (peer, draws) in peers.items():
        moments, found = [], None
        for number in (0, draws):  # without permutations: the single pass, which is not extrapolated
            start = time.process_time()
            found = peer(teacher, student, batch, draws=number)
            moments.append(time.process_time() - start)
        must_agree(saliency.draws[:draws], found.numpy())
        once, some = moments
        work = f"layer {place}, {ROWS} x {CHANNELS[place]} x {DRAWS} ({saliency.form}), peer: {name}"
        rows.append(Row(work, ours, once + (some - once) * DRAWS / draws, published))
    return rows


def loop_over(place: int) -> Callable[..., Tensor]:
    return lambda teacher, student, batch, draws: tail_loop(teacher, student, batch, place, draws)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher = build_ravdess("audio").module.eval()
    batch = Batch({"audio": torch.randn(ROWS, *SHAPES["audio"]), "image": torch.randn(ROWS, 8)}, {})
    show([row for place in CHANNELS for row in compare(place, teacher, batch)], published="the whole network each time")


if __name__ == "__main__":
    main()
