"""Stochastic gradient descent with momentum (Robbins and Monro 1951; Sutskever et al. 2013, ICML)."""

import torch
from torch import nn

from registry.contracts import Optimizer
from registry.core import register
from registry.optimizer import _shared
from registry.options import NonNegative, Rate


@register
class SGD(Optimizer):
    """g' = g + decay w,  m = momentum m + g',  w -= lr m; with `nesterov`, w -= lr (g' + momentum m).

    The decay goes through the momentum, as in torch: with it, it is stronger than AdamW's of the same number.
    """

    class Options(Optimizer.Options):
        momentum: Rate = 0.0
        """Momentum."""
        nesterov: bool = False
        """Whether to use Nesterov momentum."""
        weight_decay: NonNegative = 0.0
        """Weight decay (L2) of matrices and embeddings. Vectors, scalars, norms and parameters in a part's
        `no_weight_decay` do not decay."""

    def __init__(self, options: Options) -> None:
        if options.nesterov and options.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got 0; give one, or leave nesterov out")
        super().__init__(options)

    def make(self, model: nn.Module) -> torch.optim.SGD:
        """SGD over what requires a gradient, in one fused kernel where torch has it."""
        options = self.options
        groups = _shared.groups(model, options.weight_decay)
        fused = _shared.fused(model)
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov, fused=fused)
