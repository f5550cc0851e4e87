"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

from typing import Annotated

import torch
from torch import nn

from registry.contracts import Optimizer
from registry.core import register
from registry.optimizer import _shared
from registry.options import AsTuple, NonNegative, Positive, Rate


@register
class AdamW(Optimizer):
    """m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  w -= lr (m^ / (sqrt(v^) + eps) + decay w)."""

    class Options(Optimizer.Options):
        betas: Annotated[tuple[Rate, Rate], AsTuple] = (0.9, 0.95)
        """Decay rates of the moving averages of the gradient and of its square."""
        eps: Positive = 1e-8
        """Added to the denominator."""
        weight_decay: NonNegative = 0.1
        """Decoupled weight decay of matrices and embeddings. Vectors, scalars, norms and parameters in a part's
        `no_weight_decay` do not decay."""

    def make(self, model: nn.Module) -> torch.optim.AdamW:
        """AdamW over what requires a gradient, in one fused kernel where torch has it."""
        options = self.options
        groups = _shared.groups(model, options.weight_decay)
        fused = _shared.fused(model)
        return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=fused)
