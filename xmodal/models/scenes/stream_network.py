"""What DDRNet, AICNet and GRFNet share: a stream per modality, a fusion of all levels, and a head.

    pictures, positions ──streams──▶ four levels per modality ──fusion──▶ features ──embedding, head──▶ logits

The networks differ in the blocks of their streams, in the fusion and in the sizes of the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from xmodal.models.scenes.ddr import Bottleneck3d, checkpointed, head, initialise
from xmodal.models.scenes.streams import LEVELS, WIDTH, Streams

DILATIONS = (2, 3, 5)  # of the three later blocks of a stream, as in the code of DDRNet


class StreamNetwork(nn.Module):
    """The common part; a subclass sets ``inner`` and ``hidden`` and implements `add_fusion` and `fuse`.

    Args:
        channels: modality → channels of its pictures.
        positions: modality → name of the input with the voxel of each pixel.
        outputs: number of classes.
        volume: X, H and Y of the volume.
        sparse: see `Streams`.
        recompute: see `Streams`.
        unused: also create the later blocks of a second modality, which nothing reads. The published networks for one
            modality contain them, so their files fit only with these blocks.

    Attributes:
        inner: channels inside the first `Bottleneck3d` of a stream.
        hidden: channels of the hidden layers of the head.
    """

    inner: int
    hidden: tuple[int, ...]

    def __init__(
        self,
        channels: Mapping[str, int],
        positions: Mapping[str, str],
        outputs: int,
        *,
        volume: Sequence[int],
        sparse: bool = True,
        recompute: bool = False,
        unused: bool = False,
    ) -> None:
        super().__init__()
        # The order of these lines fixes three things: the order of the random draws, the order of the parameters in an
        # optimiser's state, and the order of the names in a file.
        self.streams = Streams(
            channels, positions, volume=volume, inner=self.inner, block=self.block, sparse=sparse, recompute=recompute
        )
        self.unused = nn.ModuleList(self.block(number) for number in range(LEVELS - 1 if unused else 0))
        self.recompute = recompute
        width = self.add_fusion()
        # An identity gives the fused features a layer name under which they can be read or replaced.
        self.embedding = nn.Identity()
        self.head = head(width, *self.hidden, outputs)
        initialise(self)

    def block(self, number: int) -> nn.Module:
        """Build one of the three later blocks of a stream, numbered 0 to 2."""
        return Bottleneck3d(WIDTH, 16, WIDTH, dilation=DILATIONS[number])

    def add_fusion(self) -> int:
        """Create the layers of the fusion and return the number of channels that `fuse` produces."""
        raise NotImplementedError

    def fuse(self, levels: Mapping[str, Sequence[Tensor]]) -> Tensor:
        """Modality → its four levels (batch, 64, D/4, H/4, W/4) in, features (batch, channels, D/4, H/4, W/4) out."""
        raise NotImplementedError

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Modality → (batch, channels, height, width) in, logits (batch, classes, D/4, H/4, W/4) out."""
        features = self.embedding(self.fuse(self.streams(inputs)))
        logits: Tensor = checkpointed(self.head, features, recompute=self.recompute)
        return logits
