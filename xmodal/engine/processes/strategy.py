"""How several processes average gradients. Imported by `launch` alone: Lightning Fabric takes seconds to import."""

from __future__ import annotations

from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class PerMethod(DDPStrategy):
    """DDP that looks for parameters without a gradient only for methods that say they have some.

    The search visits the whole graph before every backward pass.
    """

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        """Wrap a method, see `Method.unused_parameters`."""
        self._ddp_kwargs["find_unused_parameters"] = bool(getattr(module, "unused_parameters", False))
        return super().setup_module(module)
