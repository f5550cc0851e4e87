"""Optimizer in backward: each parameter is updated once its gradient is complete, and the gradient is freed.

The gradients are never all in memory, which saves nearly their size (Lv et al. 2023, arXiv:2306.09782). A gradient is
complete after the last use of its parameter in a backward pass, so no operator uses an updated weight.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

M = TypeVar("M", bound=nn.Module)


class OptimizerInBackward:
    """A transform after which `backward()` runs the optimizer for each parameter and leaves no gradient.

        model = OptimizerInBackward(optimizer)(model)

    Gradients can be neither clipped nor accumulated.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._norms: list[Tensor] = []
        self._hooks: list[RemovableHandle] = []

    def __call__(self, model: M) -> M:
        """Register the step as a hook of each parameter that the optimizer holds."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    self._hooks.append(parameter.register_post_accumulate_grad_hook(self._step))
        return model

    def remove(self) -> None:
        """Undo it: backward passes leave gradients again."""
        while self._hooks:
            self._hooks.pop().remove()

    def norm(self) -> Tensor:
        """Norm of the gradients since the last call, float32 ()."""
        norms, self._norms = self._norms, []
        return torch.stack(norms).norm() if norms else torch.zeros(())

    def _step(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._norms.append(torch.linalg.vector_norm(parameter.grad, dtype=torch.float32))
        self.optimizer.step()  # parameters with a gradient
        parameter.grad = None
