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
        """How slowly the averages of the gradient and of its square forget."""
        eps: Positive = 1e-8
        """Keeps the division by the root of the second average finite."""
        weight_decay: NonNegative = 0.1
        """Pull of matrices and tables toward zero, times the learning rate. Vectors, scalars and norms never decay,
        nor does what a part names in `no_weight_decay`."""

    def make(self, model: nn.Module) -> torch.optim.AdamW:
        """AdamW over what requires a gradient, in one fused kernel where torch has it."""
        options = self.options
        groups = _shared.groups(model, options.weight_decay)
        fused = _shared.fused(model)
        return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=fused)
