"""Implementations of attention; chosen by the run, not by the model."""

from typing import Annotated

from torch import Tensor

from registry.context import Mask
from registry.options import Options, Slot
from registry.part import ModelPart


class Kernel(ModelPart):
    """Computes attention. A kernel is chosen by the run, not by the architecture: every kernel equals `eager`.

    q (B, H, T, K), k and v (B, G, S, K) with H a multiple of G; bias (H, T, S) or (B, H, T, S); sinks (H,): the logit
    of a key without a value. Returns (B, H, T, width of v).
    """

    family = "kernel"

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Mask,
        *,
        scale: float,
        softcap: float | None,
        bias: Tensor | None,
        sinks: Tensor | None,
        dropout: float,
    ) -> Tensor:
        raise NotImplementedError


KernelSlot = Annotated[Options, Slot("kernel")]
