"""BatchNorm with the statistics of the batches of all processes, on any device.

torch's own SyncBatchNorm refuses CPU tensors. The sums and the number of values are exchanged, not means, so shares of
different size are correct as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from xmodal.collectives import sum_over_processes


class SyncedBatchNorm(_BatchNorm):
    """BatchNorm with the statistics of the global batch in training; parameter names are those of torch's BatchNorm."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 axes (rows, channels), got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input`` (rows, channels, …)."""
        self._check_input_dim(input)
        if not self.training and self.track_running_stats:
            evaluated: Tensor = super().forward(input)
            return evaluated
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        # sums over many rows need more digits than half precision has
        wide = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        count = wide.new_tensor([float(wide.numel() // wide.shape[1])])
        channels = wide.shape[1]
        sums = sum_over_processes(torch.cat([wide.sum(axes), count]))
        mean = sums[:channels] / sums[-1]
        # A second exchange, of squared deviations from the common mean: E[x²] - E[x]², which needs only one exchange,
        # loses digits where the mean is large.
        squares = sum_over_processes((wide - mean.view(shape)).square().sum(axes))
        variance = squares / sums[-1]
        # the running variance is unbiased, as torch's is
        if self.track_running_stats and self.training:
            self._track(mean.detach(), (squares / (sums[-1] - 1)).detach())
        out = (wide - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        result: Tensor = out.to(input.dtype)
        return result

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def synchronise_batchnorm(module: nn.Module) -> None:
    """Replace every BatchNorm in ``module`` that is in training mode; its parameters and buffers are kept."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and child.training:
            synced = SyncedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            synced._parameters, synced._buffers = child._parameters, child._buffers
            setattr(module, name, synced)
        else:
            synchronise_batchnorm(child)
